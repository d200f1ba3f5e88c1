// SPDX-License-Identifier: Apache-2.0
/*
 * What a capture shows of a packet because it was taken before hardware completed it, or because the host sent it:
 * dossim/packet/offload.py says why. Lengths are those that were captured.
 */
#include "artefacts.h"

enum { MOST_EXTENSIONS = 8, ETHERNET_MTU = 1500 };

static uint32_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/*
 * A segment that the IP header says has length bytes. Its checksum is 0 where 0 is not valid, or the sum of the pseudo
 * header alone, and it is not correct nevertheless. addresses is the sum of their words.
 */
static bool is_offloaded(struct bytes segment, uint32_t length, int protocol, uint32_t addresses,
			 bool zero_is_legal)
{
	static const uint8_t places[256] = {[TCP] = 16, [UDP] = 6, [SCTP] = 8};
	uint32_t place = places[protocol], pseudo, stored;

	if (!place || segment.length < place + (protocol == SCTP ? 4 : 2))
		return false;
	if (protocol == SCTP)
		return !be32(segment.at + place);
	stored = be16(segment.at + place);
	pseudo = fold(addresses + (uint32_t)protocol + (length & 0xffff) + (length >> 16));
	if (stored != pseudo && (stored || zero_is_legal))
		return false;
	return length > segment.length || !all_ones(word(pseudo) + sum_words(segment.at, length));
}

static uint32_t sum_of(const uint8_t *at, uint32_t words)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < words; i++)
		sum += be16(at + 2 * i);
	return sum;
}

static uint8_t artefacts4(struct bytes ip, const struct nets *own)
{
	uint32_t header, total;
	uint64_t source[2] = {0};
	uint8_t found = 0;
	int protocol;

	if (ip.length < 20)
		return 0;
	source[1] = be32(ip.at + 12);
	if (nets_contain(own, 4, source))
		found |= SENT_BY_HOST;
	header = (ip.at[0] & 15) * 4;
	total = be16(ip.at + 2);
	protocol = ip.at[9];
	if (ip.at[0] >> 4 != 4 || header < 20)
		return found;
	if (ip.length >= header && !be16(ip.at + 10) && !all_ones(sum_words(ip.at, header)))
		found |= HEADER_NOT_SUMMED;
	if ((protocol == TCP || protocol == UDP) && !total && ip.length > ETHERNET_MTU)
		found |= LENGTH_MISSING;
	if (!(be16(ip.at + 6) & 0x3fff) && total > header &&
	    is_offloaded(bytes_from(ip, header), total - header, protocol, sum_of(ip.at + 12, 4),
			 protocol == UDP))
		found |= NOT_SUMMED;
	return found;
}

static uint8_t artefacts6(struct bytes ip, const struct nets *own)
{
	uint32_t at = 40, end;
	uint64_t source[2];
	uint8_t found = 0;
	int protocol;

	if (ip.length < 40)
		return 0;
	source[0] = be64(ip.at + 8);
	source[1] = be64(ip.at + 16);
	if (nets_contain(own, 6, source))
		found |= SENT_BY_HOST;
	if (ip.at[0] >> 4 != 6)
		return found;
	end = 40u + be16(ip.at + 4);
	protocol = ip.at[6];
	for (int i = 0; i < MOST_EXTENSIONS; i++) {
		int following;

		if ((protocol != HOP_BY_HOP && protocol != OPTIONS) || at + 2 > ip.length)
			break;
		following = ip.at[at];
		at += extension_length(protocol, ip.at[at + 1]);
		protocol = following;
	}
	if (end > at &&
	    is_offloaded(bytes_from(ip, at), end - at, protocol, sum_of(ip.at + 8, 16), false))
		found |= NOT_SUMMED;
	return found;
}

uint8_t artefacts_of(struct bytes frame, const struct nets *own)
{
	struct packet p = {.frame = {frame.at, frame.seen, frame.seen}};

	if (parse_link(&p) == ODD)
		return 0;
	if (p.type == TYPE_IPV4)
		return artefacts4(p.ip, own);
	return p.type == TYPE_IPV6 ? artefacts6(p.ip, own) : 0;
}

/* Most frames: of IPv4 without a tag and options. Of these all that is looked at is where it is. */
enum { AT_TYPE = 12, AT_IP = 14, AT_SEGMENT = 34, LEAST_SEEN = 54 };

/* False: artefacts_of() has to look. Else the packet has no other artefact than found. */
static inline bool is_complete(const uint8_t *frame, int64_t seen, const struct nets *own,
			       uint8_t *found)
{
	const uint8_t *ip = frame + AT_IP, *segment = frame + AT_SEGMENT;
	uint64_t source[2] = {0}, sum;
	uint32_t length;
	uint16_t stored;

	if (seen < LEAST_SEEN || be16(frame + AT_TYPE) != TYPE_IPV4 || ip[0] != 0x45)
		return false;
	if (!(ip[10] | ip[11]) || be16(ip + 2) <= 20 || (ip[9] != TCP && ip[9] != UDP))
		return false;
	length = be16(ip + 2) - 20u;
	memcpy(&stored, segment + (ip[9] == TCP ? 16 : 6), sizeof stored);
	if (!(be16(ip + 6) & 0x3fff)) {
		if (!stored && ip[9] == TCP)
			return false;
		sum = sum_words(ip + 12, 8) + word(ip[9]) + word(length);
		if (all_ones(sum + (stored ^ 0xffff))) /* it is that of the pseudo header */
			return false;
	}
	source[1] = be32(ip + 12);
	*found = nets_contain(own, 4, source) ? SENT_BY_HOST : 0;
	return true;
}

/*
 * found: enum artefact of each packet; packets: how many have each combination of them, of 16. Returns -1, or the number
 * of the first packet that is not within the data.
 */
int64_t engine_artefacts(const struct capture *capture, int64_t count, const struct nets *own,
			 uint8_t *found, int64_t *packets)
{
	enum { AHEAD = 16 };

	for (int64_t number = 0; number < count; number++) {
		int64_t offset = capture->offset[number], seen = capture->length[number];

		if (offset < 0 || seen < 0 || offset > capture->size - seen)
			return number;
		if (number + AHEAD < count)
			__builtin_prefetch(capture->data + capture->offset[number + AHEAD] + 14);
		if (!is_complete(capture->data + offset, seen, own, &found[number])) {
			struct bytes frame = {capture->data + offset, (uint32_t)seen,
					      (uint32_t)seen};

			found[number] = artefacts_of(frame, own);
		}
		packets[found[number]]++;
	}
	return -1;
}
