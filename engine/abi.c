// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

uint32_t engine_abi(void)
{
	return ENGINE_ABI;
}
