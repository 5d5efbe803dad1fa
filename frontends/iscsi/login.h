/*
 * login.h: the login phase, shared by its parts: login.c (PDUs, stages), login_auth.c (who is it, and may he), login_keys.c
 * (operational parameters). Private to the target.
 */
#ifndef FRONTENDS_ISCSI_LOGIN_H
#define FRONTENDS_ISCSI_LOGIN_H

#include "frontends/iscsi/conn.h"

enum login_auth {
	AUTH_OPEN,	/* nothing has been said */
	AUTH_NONE,
	AUTH_CHAP_START, /* CHAP it is: which algorithm? */
	AUTH_CHAP_ASKED, /* our challenge is out */
	AUTH_CHAP_DONE,
};

/* Operational keys, in the order of login_keys.c's table. */
enum login_key {
	KEY_HEADER_DIGEST, KEY_DATA_DIGEST, KEY_MAX_CONNECTIONS, KEY_INITIAL_R2T, KEY_IMMEDIATE_DATA, KEY_MAX_RECV, KEY_MAX_BURST,
	KEY_FIRST_BURST, KEY_TIME2WAIT, KEY_TIME2RETAIN, KEY_MAX_R2T, KEY_PDU_IN_ORDER, KEY_SEQUENCE_IN_ORDER, KEY_RECOVERY_LEVEL,
	KEY_PROTOCOL_LEVEL, KEY_TASK_REPORTING, KEY_OF_MARKER, KEY_IF_MARKER, KEY_OF_MARK_INT, KEY_IF_MARK_INT, KEY_RDMA,
	LOGIN_KEYS
};

struct login {
	struct iscsi_conn *c;
	uint64_t deadline_ns;
	struct iscsi_bhs req;
	uint8_t *data;		/* ISCSI_TEXT_SEGMENT_DEFAULT bytes */
	uint32_t data_len;
	struct iscsi_text in, out;
	unsigned stage, n_requests;
	bool is_begun;		/* the first request was taken */
	bool is_named;		/* its text too: initiator and target are known */
	bool has_initiator, has_target, has_session_type, bad_session_type, bad_name, declared;
	unsigned responses;
	enum login_auth auth;
	char *chap_list;	/* what CHAP_A offered, in this request */
	char *auth_list;
	struct iscsi_chap *chap;
	uint32_t have;		/* operational keys that have come, by bit */
	enum iscsi_login_status status;
};

/* login_auth.c */
/* Takes a key of names and security: 1: it was one, 0: it was none, else the login is over: l->status. */
int login_auth_key(struct login *l, const char *key, const char *value);
/* After the text of the first request: who is it, and what may he see? */
int login_co_name(struct login *l);
/* After the text of a request of the security stage: what comes next. */
int login_auth_step(struct login *l);
/* May it leave the security stage? */
bool login_auth_is_done(const struct login *l);
/* A session begins: what asks for a secret that has not been shown is not in it. */
void login_auth_end(struct login *l);

/* login_keys.c: always takes the key; answers it. */
int login_operational_key(struct login *l, const char *key, const char *value);
/* What we declare ourselves, once. */
void login_declare(struct login *l);

static inline int login_fail(struct login *l, enum iscsi_login_status status)
{
	l->status = status;
	return -EPROTO;
}

#endif
