/* SPDX-License-Identifier: Apache-2.0 */
/* What a capture shows of a packet because it was taken before hardware completed it, or because the host sent it. */
#ifndef ARTEFACTS_H
#define ARTEFACTS_H

#include "octets.h"
#include "ordinary.h"
#include "protocols.h"

enum { INCOMPLETE = NOT_SUMMED | HEADER_NOT_SUMMED | LENGTH_MISSING };

/* enum artefact; lengths are those that were captured. */
uint8_t artefacts_of(struct bytes frame, const struct nets *own);

/*
 * False: the packet has none of these artefacts. Else artefacts_of() has to look: a checksum is 0, or that of the pseudo
 * header.
 */
static inline bool may_be_incomplete(const struct ordinary *it)
{
	const uint8_t *ip = it->ip, *segment = ip + it->segment;
	uint32_t protocol = it->protocol;
	uint64_t sum;
	uint16_t stored;

	if (it->version == 4 && !(ip[10] | ip[11]))
		return true;
	if (protocol != TCP && protocol != UDP)
		return false;
	memcpy(&stored, segment + (protocol == TCP ? 16 : 6), sizeof stored);
	if (!stored)
		return it->version == 6 || protocol == TCP;
	sum = it->version == 4 ? sum_words(ip + 12, 8) : sum_words(ip + 8, 32);
	sum += number(protocol + it->total - it->segment);
	return folds_to_ones(sum + 0xffff - stored);
}

#endif
