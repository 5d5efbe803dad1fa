/*
 * scsi_wire.h: SCSI on the wire: big-endian fields, operation codes, sense codes. Numbers, nothing else.
 */
#ifndef FRONTENDS_ISCSI_SCSI_WIRE_H
#define FRONTENDS_ISCSI_SCSI_WIRE_H

#include <endian.h>
#include <string.h>
#include "engine/base/base.h"

static inline uint16_t scsi_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t scsi_get24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint32_t scsi_get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static inline uint64_t scsi_get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static inline void scsi_put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static inline void scsi_put24(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 16); p[1] = (uint8_t)(v >> 8); p[2] = (uint8_t)v; }
static inline void scsi_put32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static inline void scsi_put64(uint8_t *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }

enum {
	OP_TEST_UNIT_READY = 0x00,
	OP_REQUEST_SENSE = 0x03,
	OP_READ_6 = 0x08,
	OP_WRITE_6 = 0x0a,
	OP_INQUIRY = 0x12,
	OP_MODE_SELECT_6 = 0x15,
	OP_RESERVE_6 = 0x16,
	OP_RELEASE_6 = 0x17,
	OP_MODE_SENSE_6 = 0x1a,
	OP_START_STOP_UNIT = 0x1b,
	OP_PREVENT_ALLOW = 0x1e,
	OP_READ_CAPACITY_10 = 0x25,
	OP_READ_10 = 0x28,
	OP_WRITE_10 = 0x2a,
	OP_WRITE_AND_VERIFY_10 = 0x2e,
	OP_VERIFY_10 = 0x2f,
	OP_PRE_FETCH_10 = 0x34,
	OP_SYNCHRONIZE_CACHE_10 = 0x35,
	OP_WRITE_SAME_10 = 0x41,
	OP_UNMAP = 0x42,
	OP_LOG_SENSE = 0x4d,
	OP_MODE_SELECT_10 = 0x55,
	OP_RESERVE_10 = 0x56,
	OP_RELEASE_10 = 0x57,
	OP_MODE_SENSE_10 = 0x5a,
	OP_PERSISTENT_RESERVE_IN = 0x5e,
	OP_PERSISTENT_RESERVE_OUT = 0x5f,
	OP_THIRD_PARTY_COPY_OUT = 0x83,
	OP_THIRD_PARTY_COPY_IN = 0x84,
	OP_READ_16 = 0x88,
	OP_COMPARE_AND_WRITE = 0x89,
	OP_WRITE_16 = 0x8a,
	OP_WRITE_AND_VERIFY_16 = 0x8e,
	OP_VERIFY_16 = 0x8f,
	OP_PRE_FETCH_16 = 0x90,
	OP_SYNCHRONIZE_CACHE_16 = 0x91,
	OP_WRITE_SAME_16 = 0x93,
	OP_SERVICE_ACTION_IN_16 = 0x9e,
	OP_REPORT_LUNS = 0xa0,
	OP_MAINTENANCE_IN = 0xa3,
	OP_READ_12 = 0xa8,
	OP_WRITE_12 = 0xaa,
	OP_WRITE_AND_VERIFY_12 = 0xae,
	OP_VERIFY_12 = 0xaf,
};

enum { /* service actions */
	SA_READ_CAPACITY_16 = 0x10,
	SA_GET_LBA_STATUS = 0x12,
	SA_REPORT_TARGET_PORT_GROUPS = 0x0a,
	SA_REPORT_SUPPORTED_OPCODES = 0x0c,
	SA_REPORT_SUPPORTED_TMF = 0x0d,
	SA_EXTENDED_COPY_LID1 = 0x00,
	SA_POPULATE_TOKEN = 0x10,
	SA_WRITE_USING_TOKEN = 0x11,
	SA_COPY_OPERATION_ABORT = 0x1c,
	SA_COPY_STATUS_LID1 = 0x00,
	SA_COPY_PARAMETERS = 0x03,
	SA_COPY_FAILED_DETAILS = 0x04,
	SA_RECEIVE_ROD_TOKEN = 0x07,
};

enum { /* sense keys */
	KEY_NO_SENSE = 0x0,
	KEY_NOT_READY = 0x2,
	KEY_MEDIUM_ERROR = 0x3,
	KEY_HARDWARE_ERROR = 0x4,
	KEY_ILLEGAL_REQUEST = 0x5,
	KEY_UNIT_ATTENTION = 0x6,
	KEY_DATA_PROTECT = 0x7,
	KEY_COPY_ABORTED = 0xa,
	KEY_ABORTED_COMMAND = 0xb,
	KEY_MISCOMPARE = 0xe,
};

/* Additional sense code and qualifier in one. */
enum {
	ASC_NONE = 0x0000,
	ASC_OPERATION_IN_PROGRESS = 0x0016,
	ASC_NOT_READY = 0x0400,
	ASC_WRITE_ERROR = 0x0c00,
	ASC_UNREACHABLE_COPY_TARGET = 0x0804,
	ASC_COPY_TARGET_NOT_REACHABLE = 0x0d02,
	ASC_BAD_INFORMATION_UNIT = 0x0e03, /* invalid field in command information unit */
	ASC_READ_ERROR = 0x1100,
	ASC_PARAMETER_LIST_LENGTH = 0x1a00,
	ASC_MISCOMPARE = 0x1d00,
	ASC_INVALID_OPCODE = 0x2000,
	ASC_LBA_OUT_OF_RANGE = 0x2100,
	ASC_TOKEN_UNKNOWN = 0x2304,
	ASC_TOKEN_REVOKED = 0x2305,
	ASC_TOKEN_EXPIRED = 0x2306,
	ASC_TOKEN_DELETED = 0x2308,
	ASC_TOKEN_INVALID_LENGTH = 0x230a,
	ASC_INVALID_FIELD_IN_CDB = 0x2400,
	ASC_LUN_NOT_SUPPORTED = 0x2500,
	ASC_INVALID_FIELD_IN_LIST = 0x2600,
	ASC_RELEASE_OF_NONE = 0x2604, /* invalid release of persistent reservation */
	ASC_TOO_MANY_TARGETS = 0x2606,
	ASC_BAD_TARGET_TYPE = 0x2607,
	ASC_TOO_MANY_SEGMENTS = 0x2608,
	ASC_BAD_SEGMENT_TYPE = 0x2609,
	ASC_WRITE_PROTECTED = 0x2700,
	ASC_SOFTWARE_WRITE_PROTECTED = 0x2702,
	ASC_SPACE_ALLOCATION_FAILED = 0x2707,
	ASC_POWER_ON = 0x2900,
	ASC_LUN_RESET = 0x2903,
	ASC_NEXUS_LOSS = 0x2907,
	ASC_MODE_PARAMETERS_CHANGED = 0x2a01,
	ASC_RESERVATIONS_PREEMPTED = 0x2a03,
	ASC_RESERVATIONS_RELEASED = 0x2a04,
	ASC_REGISTRATIONS_PREEMPTED = 0x2a05,
	ASC_CAPACITY_CHANGED = 0x2a09,
	ASC_COMMANDS_CLEARED = 0x2f00,
	ASC_THRESHOLD_REACHED = 0x3807, /* thin provisioning soft threshold */
	ASC_SAVING_NOT_SUPPORTED = 0x3900,
	ASC_LUNS_CHANGED = 0x3f0e,
	ASC_INTERNAL_FAILURE = 0x4400,
	ASC_INSUFFICIENT_REGISTRATIONS = 0x5504, /* insufficient registration resources */
	ASC_NO_RESOURCES = 0x5503,
	ASC_REMOVAL_PREVENTED = 0x5302,
};

#endif
