// SPDX-License-Identifier: Apache-2.0
/* The sizes of what Python passes, in the order of dossim/engine/layout.py. */
#include "course.h"
#include "follow.h"

uint32_t engine_size(uint32_t which)
{
	static const uint32_t sizes[] = {
		sizeof(struct range4),	    sizeof(struct range6),
		sizeof(struct condition),   sizeof(struct entry),
		sizeof(struct port_range),  sizeof(struct port_member),
		sizeof(struct port_set),    sizeof(struct failsafe),
		sizeof(struct tier),	    sizeof(struct route),
		sizeof(struct flow),	    sizeof(struct nets),
		sizeof(struct rules),	    sizeof(struct chain),
		sizeof(struct after),	    sizeof(struct world),
		sizeof(struct capture),	    sizeof(struct columns),
		sizeof(struct outcome),	    sizeof(struct left),
		sizeof(struct sweep),	    sizeof(struct window),
		sizeof(struct file),	    sizeof(struct walk),
		sizeof(struct blocks),	    sizeof(struct reading),
		sizeof(struct runner),	    sizeof(struct several),
		sizeof(struct late),	    sizeof(struct told),
		sizeof(struct saying),	    sizeof(struct doubt),
		sizeof(struct way_setup),   sizeof(struct follower_setup),
		sizeof(struct way_columns), sizeof(struct follow_batch),
		sizeof(struct followed),    sizeof(struct cut_count),
		sizeof(struct counted),	    sizeof(struct flow_setup),
		sizeof(struct flow_counts),
	};

	return which < sizeof sizes / sizeof *sizes ? sizes[which] : 0;
}
