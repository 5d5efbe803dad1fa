/*
 * proto.h: the NBD protocol on the wire (NetworkBlockDevice/nbd doc/proto.md): numbers and packed structures, nothing else.
 *
 * Everything is big-endian and made of bytes, so a structure can be laid over any place of a receive buffer.
 */
#ifndef NBD_PROTO_H
#define NBD_PROTO_H

#include "engine/base/base.h"
#include "engine/base/be.h"

/* ---- handshake ---- */

#define NBD_MAGIC 0x4e42444d41474943ULL	       /* "NBDMAGIC" */
#define NBD_OPT_MAGIC 0x49484156454f5054ULL    /* "IHAVEOPT" */
#define NBD_REP_MAGIC 0x0003e889045565a9ULL

enum { /* handshake flags of the server, and of the client */
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
};

enum { /* transmission flags */
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
	NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ACK 1U
#define NBD_REP_SERVER 2U
#define NBD_REP_INFO 3U
#define NBD_REP_META_CONTEXT 4U
#define NBD_REP_ERR_UNSUP 0x80000001U
#define NBD_REP_ERR_POLICY 0x80000002U
#define NBD_REP_ERR_INVALID 0x80000003U
#define NBD_REP_ERR_PLATFORM 0x80000004U
#define NBD_REP_ERR_TLS_REQD 0x80000005U
#define NBD_REP_ERR_UNKNOWN 0x80000006U
#define NBD_REP_ERR_SHUTDOWN 0x80000007U
#define NBD_REP_ERR_BLOCK_SIZE_REQD 0x80000008U
#define NBD_REP_ERR_TOO_BIG 0x80000009U
#define NBD_REP_ERR_EXT_HEADER_REQD 0x8000000aU

enum {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

#define NBD_STRING_MAX 4096U

struct nbd_greeting {
	be64 magic, opt_magic;
	be16 flags;
};

struct nbd_opt_hdr {
	be64 magic;
	be32 option, len_bytes;
};

struct nbd_rep_hdr {
	be64 magic;
	be32 option, type, len_bytes;
};

struct nbd_export_reply { /* to EXPORT_NAME; the zeroes only without NO_ZEROES */
	be64 size_bytes;
	be16 flags;
	uint8_t zeroes[124];
};

struct nbd_info_export {
	be16 type;
	be64 size_bytes;
	be16 flags;
};

struct nbd_info_block_size {
	be16 type;
	be32 min_bytes, preferred_bytes, max_bytes;
};

/* ---- transmission ---- */

#define NBD_REQUEST_MAGIC 0x25609513U
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698U
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efU
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71U
#define NBD_EXTENDED_REPLY_MAGIC 0x6e8a278cU

enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5, /* extended: the length is that of a payload that follows */
};

#define NBD_REPLY_FLAG_DONE 1U

#define NBD_REPLY_TYPE_NONE 0U
#define NBD_REPLY_TYPE_OFFSET_DATA 1U
#define NBD_REPLY_TYPE_OFFSET_HOLE 2U
#define NBD_REPLY_TYPE_BLOCK_STATUS 5U
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6U
#define NBD_REPLY_TYPE_ERROR 0x8001U
#define NBD_REPLY_TYPE_ERROR_OFFSET 0x8002U

enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

struct nbd_request {
	be32 magic;
	be16 flags, cmd;
	be64 cookie;
	be64 off_bytes;
	be32 len_bytes;
};

struct nbd_request_ext { /* with extended headers */
	be32 magic;
	be16 flags, cmd;
	be64 cookie;
	be64 off_bytes, len_bytes;
};

struct nbd_status_filter { /* payload of BLOCK_STATUS; be32 ids of contexts follow */
	be64 len_bytes;
};

struct nbd_simple_reply {
	be32 magic, error;
	be64 cookie;
};

struct nbd_chunk_hdr {
	be32 magic;
	be16 flags, type;
	be64 cookie;
	be32 len_bytes;
};

struct nbd_chunk_hdr_ext { /* with extended headers, before the same payload */
	be32 magic;
	be16 flags, type;
	be64 cookie;
	be64 off_bytes, len_bytes; /* of the request; of the payload */
};

struct nbd_chunk_data { /* payload of OFFSET_DATA; the data follows */
	be64 off_bytes;
};

struct nbd_chunk_error { /* payload of ERROR without text */
	be32 error;
	be16 text_bytes;
};

struct nbd_chunk_status { /* BLOCK_STATUS; nbd_extent follow */
	struct nbd_chunk_hdr hdr;
	be32 context;
};

struct nbd_extent {
	be32 len_bytes, flags;
};

struct nbd_chunk_status_ext { /* BLOCK_STATUS_EXT; nbd_extent_ext follow */
	struct nbd_chunk_hdr_ext hdr;
	be32 context, n_extents;
};

struct nbd_extent_ext {
	be64 len_bytes, flags;
};

_Static_assert(sizeof(struct nbd_greeting) == 18, "wire");
_Static_assert(sizeof(struct nbd_opt_hdr) == 16, "wire");
_Static_assert(sizeof(struct nbd_rep_hdr) == 20, "wire");
_Static_assert(sizeof(struct nbd_export_reply) == 134, "wire");
_Static_assert(sizeof(struct nbd_info_export) == 12, "wire");
_Static_assert(sizeof(struct nbd_info_block_size) == 14, "wire");
_Static_assert(sizeof(struct nbd_request) == 28, "wire");
_Static_assert(sizeof(struct nbd_simple_reply) == 16, "wire");
_Static_assert(sizeof(struct nbd_chunk_hdr) == 20, "wire");
_Static_assert(sizeof(struct nbd_chunk_data) == 8, "wire");
_Static_assert(sizeof(struct nbd_chunk_error) == 6, "wire");
_Static_assert(sizeof(struct nbd_chunk_status) == 24, "wire");
_Static_assert(sizeof(struct nbd_extent) == 8, "wire");
_Static_assert(sizeof(struct nbd_request_ext) == 32, "wire");
_Static_assert(sizeof(struct nbd_chunk_hdr_ext) == 32, "wire");
_Static_assert(sizeof(struct nbd_chunk_status_ext) == 40, "wire");
_Static_assert(sizeof(struct nbd_extent_ext) == 16, "wire");

#endif
