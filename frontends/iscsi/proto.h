/*
 * proto.h: what RFC 7143 puts on the wire. A PDU: basic header, additional headers, [header digest], data, padding, [data
 * digest]; all lengths but the data's are multiples of four.
 */
#ifndef FRONTENDS_ISCSI_PROTO_H
#define FRONTENDS_ISCSI_PROTO_H

#include <assert.h>
#include "engine/base/base.h"
#include "engine/base/be.h"

#define ISCSI_BHS_BYTES 48
#define ISCSI_TAG_NONE 0xffffffffU
#define ISCSI_NAME_MAX 223
#define ISCSI_TEXT_SEGMENT_DEFAULT 8192U /* MaxRecvDataSegmentLength until declared, and during login */

/* The basic header. What bytes 20 to 47 are depends on the opcode; a CDB lies at 32. */
struct iscsi_bhs {
	uint8_t opcode;	  /* 0: with ISCSI_IMMEDIATE */
	uint8_t flags;	  /* 1 */
	uint8_t b2, b3;	  /* 2: response, status, reason */
	uint8_t ahs_words; /* 4 */
	uint8_t data_len[3]; /* 5 */
	uint8_t lun[8];	  /* 8; login: ISID, TSIH */
	be32 itt;	  /* 16: initiator task tag */
	be32 ttt;	  /* 20: target transfer tag; of commands: expected data transfer length; task management: referenced tag */
	be32 sn;	  /* 24: requests: CmdSN; responses: StatSN */
	be32 exp_sn;	  /* 28: requests: ExpStatSN; responses: ExpCmdSN */
	be32 max_sn;	  /* 32: responses: MaxCmdSN */
	be32 w36;	  /* 36: DataSN, R2TSN, ExpDataSN; Time2Wait and Time2Retain */
	be32 w40;	  /* 40: buffer offset; bidirectional residual */
	be32 w44;	  /* 44: residual; desired length of data */
};
static_assert(sizeof(struct iscsi_bhs) == ISCSI_BHS_BYTES, "basic header");

enum {
	ISCSI_OP_NOP_OUT = 0x00,
	ISCSI_OP_SCSI_CMD = 0x01,
	ISCSI_OP_TASK_MGMT = 0x02,
	ISCSI_OP_LOGIN = 0x03,
	ISCSI_OP_TEXT = 0x04,
	ISCSI_OP_DATA_OUT = 0x05,
	ISCSI_OP_LOGOUT = 0x06,
	ISCSI_OP_SNACK = 0x10,
	ISCSI_OP_NOP_IN = 0x20,
	ISCSI_OP_SCSI_RSP = 0x21,
	ISCSI_OP_TASK_MGMT_RSP = 0x22,
	ISCSI_OP_LOGIN_RSP = 0x23,
	ISCSI_OP_TEXT_RSP = 0x24,
	ISCSI_OP_DATA_IN = 0x25,
	ISCSI_OP_LOGOUT_RSP = 0x26,
	ISCSI_OP_R2T = 0x31,
	ISCSI_OP_ASYNC = 0x32,
	ISCSI_OP_REJECT = 0x3f,
};
#define ISCSI_OP_MASK 0x3f
#define ISCSI_IMMEDIATE 0x40
#define ISCSI_FINAL 0x80

enum { /* flags of a SCSI command */
	ISCSI_CMD_READ = 0x40,
	ISCSI_CMD_WRITE = 0x20,
	ISCSI_CMD_ATTR = 0x07,
};
enum { /* of a SCSI response and Data-In */
	ISCSI_RSP_OVERFLOW = 0x04,
	ISCSI_RSP_UNDERFLOW = 0x02,
	ISCSI_DATA_STATUS = 0x01,
};
enum { /* of login requests and responses, text too for C */
	ISCSI_LOGIN_TRANSIT = 0x80,
	ISCSI_TEXT_CONTINUE = 0x40,
};
enum { ISCSI_STAGE_SECURITY = 0, ISCSI_STAGE_OPERATIONAL = 1, ISCSI_STAGE_FULL = 3 };

enum iscsi_login_status { /* class << 8 | detail */
	ISCSI_LOGIN_OK = 0x0000,
	ISCSI_LOGIN_INITIATOR_ERROR = 0x0200,
	ISCSI_LOGIN_AUTH_FAILED = 0x0201,
	ISCSI_LOGIN_FORBIDDEN = 0x0202,
	ISCSI_LOGIN_NOT_FOUND = 0x0203,
	ISCSI_LOGIN_BAD_VERSION = 0x0205,
	ISCSI_LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
	ISCSI_LOGIN_MISSING = 0x0207,
	ISCSI_LOGIN_BAD_SESSION_TYPE = 0x0209,
	ISCSI_LOGIN_NO_SESSION = 0x020a,
	ISCSI_LOGIN_INVALID_REQUEST = 0x020b,
	ISCSI_LOGIN_TARGET_ERROR = 0x0300,
	ISCSI_LOGIN_UNAVAILABLE = 0x0301,
	ISCSI_LOGIN_NO_RESOURCES = 0x0302,
};

enum iscsi_reject {
	ISCSI_REJECT_DATA_DIGEST = 0x02,
	ISCSI_REJECT_SNACK = 0x03,
	ISCSI_REJECT_PROTOCOL = 0x04,
	ISCSI_REJECT_UNSUPPORTED = 0x05,
	ISCSI_REJECT_TOO_MANY_IMMEDIATE = 0x06,
	ISCSI_REJECT_TASK_IN_PROGRESS = 0x07,
	ISCSI_REJECT_FIELD = 0x09,
	ISCSI_REJECT_WAIT_LOGOUT = 0x0c,
};

enum iscsi_tmf {
	ISCSI_TMF_ABORT_TASK = 1,
	ISCSI_TMF_ABORT_TASK_SET = 2,
	ISCSI_TMF_CLEAR_ACA = 3,
	ISCSI_TMF_CLEAR_TASK_SET = 4,
	ISCSI_TMF_LUN_RESET = 5,
	ISCSI_TMF_WARM_RESET = 6,
	ISCSI_TMF_COLD_RESET = 7,
	ISCSI_TMF_REASSIGN = 8,
};
enum iscsi_tmf_rsp {
	ISCSI_TMF_DONE = 0,
	ISCSI_TMF_NO_TASK = 1,
	ISCSI_TMF_NO_LUN = 2,
	ISCSI_TMF_NO_REASSIGN = 4,
	ISCSI_TMF_NOT_SUPPORTED = 5,
	ISCSI_TMF_REJECTED = 255,
};

enum { ISCSI_LOGOUT_SESSION = 0, ISCSI_LOGOUT_CONNECTION = 1, ISCSI_LOGOUT_RECOVERY = 2 };
enum { ISCSI_LOGOUT_DONE = 0, ISCSI_LOGOUT_NO_CID = 1, ISCSI_LOGOUT_NO_RECOVERY = 2 };
enum { ISCSI_ASYNC_SCSI = 0, ISCSI_ASYNC_LOGOUT = 1, ISCSI_ASYNC_DROP = 2, ISCSI_ASYNC_DROP_ALL = 3 };

enum { ISCSI_AHS_CDB = 1, ISCSI_AHS_READ_LENGTH = 2 };

static inline uint32_t iscsi_pad(uint32_t len) { return -len & 3; }

/* Serial numbers (RFC 1982). */
static inline bool iscsi_sn_before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; }

#endif
