/*
 * Operational parameters (RFC 7143 13): what we want, what comes out, and how each is answered.
 */
#include <stdio.h>

#include "frontends/iscsi/login.h"

enum kind {
	BY_LIST,    /* the first of None and CRC32C that is offered */
	BY_MIN,
	BY_MAX,
	BY_AND,
	BY_OR,
	DECLARED,   /* theirs; not answered */
	FIXED_NO,   /* a Boolean that we do not have */
	IRRELEVANT, /* goes with those */
	REPORTING,
};

static const struct key {
	const char *name;
	enum kind kind;
	uint32_t min, max, ours;
	bool not_in_discovery;
} keys[LOGIN_KEYS] = {
	[KEY_HEADER_DIGEST] = { .name = "HeaderDigest", .kind = BY_LIST },
	[KEY_DATA_DIGEST] = { .name = "DataDigest", .kind = BY_LIST },
	[KEY_MAX_CONNECTIONS] = { .name = "MaxConnections", .kind = BY_MIN, .min = 1, .max = 65535, .ours = 1, .not_in_discovery = true },
	[KEY_INITIAL_R2T] = { .name = "InitialR2T", .kind = BY_OR, .ours = 0, .not_in_discovery = true },
	[KEY_IMMEDIATE_DATA] = { .name = "ImmediateData", .kind = BY_AND, .ours = 1, .not_in_discovery = true },
	[KEY_MAX_RECV] = { .name = "MaxRecvDataSegmentLength", .kind = DECLARED, .min = 512, .max = 0xffffff },
	[KEY_MAX_BURST] = { .name = "MaxBurstLength", .kind = BY_MIN, .min = 512, .max = 0xffffff, .ours = ISCSI_BURST_MAX, .not_in_discovery = true },
	[KEY_FIRST_BURST] = { .name = "FirstBurstLength", .kind = BY_MIN, .min = 512, .max = 0xffffff, .ours = ISCSI_FIRST_BURST_MAX, .not_in_discovery = true },
	[KEY_TIME2WAIT] = { .name = "DefaultTime2Wait", .kind = BY_MAX, .min = 0, .max = 3600, .ours = 0 },
	[KEY_TIME2RETAIN] = { .name = "DefaultTime2Retain", .kind = BY_MIN, .min = 0, .max = 3600, .ours = 0 },
	[KEY_MAX_R2T] = { .name = "MaxOutstandingR2T", .kind = BY_MIN, .min = 1, .max = 65535, .ours = ISCSI_R2T_MAX, .not_in_discovery = true },
	[KEY_PDU_IN_ORDER] = { .name = "DataPDUInOrder", .kind = BY_OR, .ours = 1, .not_in_discovery = true },
	[KEY_SEQUENCE_IN_ORDER] = { .name = "DataSequenceInOrder", .kind = BY_OR, .ours = 1, .not_in_discovery = true },
	[KEY_RECOVERY_LEVEL] = { .name = "ErrorRecoveryLevel", .kind = BY_MIN, .min = 0, .max = 2, .ours = 0 },
	[KEY_PROTOCOL_LEVEL] = { .name = "iSCSIProtocolLevel", .kind = BY_MIN, .min = 0, .max = 31, .ours = 1 },
	[KEY_TASK_REPORTING] = { .name = "TaskReporting", .kind = REPORTING },
	[KEY_OF_MARKER] = { .name = "OFMarker", .kind = FIXED_NO },
	[KEY_IF_MARKER] = { .name = "IFMarker", .kind = FIXED_NO },
	[KEY_OF_MARK_INT] = { .name = "OFMarkInt", .kind = IRRELEVANT },
	[KEY_IF_MARK_INT] = { .name = "IFMarkInt", .kind = IRRELEVANT },
	[KEY_RDMA] = { .name = "RDMAExtensions", .kind = FIXED_NO },
};

static int key_find(const char *name)
{
	int i;

	for (i = 0; i < LOGIN_KEYS; i++)
		if (!strcmp(keys[i].name, name))
			return i;
	return -1;
}

static void value_set(struct iscsi_params *p, enum login_key k, uint32_t v)
{
	switch (k) {
	case KEY_HEADER_DIGEST:
		p->header_digest = v;
		break;
	case KEY_DATA_DIGEST:
		p->data_digest = v;
		break;
	case KEY_INITIAL_R2T:
		p->initial_r2t = v;
		break;
	case KEY_IMMEDIATE_DATA:
		p->immediate_data = v;
		break;
	case KEY_MAX_RECV:
		p->send_segment = v;
		break;
	case KEY_MAX_BURST:
		p->max_burst = v;
		break;
	case KEY_FIRST_BURST:
		p->first_burst = v;
		break;
	case KEY_TIME2WAIT:
		p->time2wait = v;
		break;
	case KEY_MAX_R2T:
		p->max_r2t = v;
		break;
	default: /* what comes out is what we have anyway */
		break;
	}
}

static void list_answer(struct login *l, enum login_key k, const char *value)
{
	size_t none = strlen(value), crc = none, i;

	for (i = 0; value[i]; i++) {
		if (i && value[i - 1] != ',')
			continue;
		if (none == strlen(value) && !strncmp(value + i, "None", 4) && (value[i + 4] == ',' || !value[i + 4]))
			none = i;
		if (crc == strlen(value) && !strncmp(value + i, "CRC32C", 6) && (value[i + 6] == ',' || !value[i + 6]))
			crc = i;
	}
	if (none == crc) { /* neither */
		iscsi_text_put(&l->out, keys[k].name, "Reject");
		return;
	}
	value_set(&l->c->prm, k, crc < none);
	iscsi_text_put(&l->out, keys[k].name, crc < none ? "CRC32C" : "None");
}

static void number_answer(struct login *l, enum login_key k, const char *value)
{
	const struct key *d = &keys[k];
	uint64_t v;

	if (!iscsi_text_number(value, d->min, d->max, &v)) {
		iscsi_text_put(&l->out, d->name, "Reject");
		return;
	}
	if (d->kind == BY_MIN)
		v = MIN(v, (uint64_t)d->ours);
	if (d->kind == BY_MAX)
		v = MAX(v, (uint64_t)d->ours);
	value_set(&l->c->prm, k, (uint32_t)v);
	if (d->kind != DECLARED)
		iscsi_text_putf(&l->out, d->name, "%llu", (unsigned long long)v);
}

static void bool_answer(struct login *l, enum login_key k, const char *value)
{
	const struct key *d = &keys[k];
	bool v;

	if (!iscsi_text_bool(value, &v)) {
		iscsi_text_put(&l->out, d->name, "Reject");
		return;
	}
	v = d->kind == BY_AND ? v && d->ours : d->kind == BY_OR ? v || d->ours : false;
	value_set(&l->c->prm, k, v);
	iscsi_text_put(&l->out, d->name, v ? "Yes" : "No");
}

int login_operational_key(struct login *l, const char *key, const char *value)
{
	int k = key_find(key);

	if (!strcmp(key, "NodeArchitecture") || !strcmp(value, "NotUnderstood") || !strcmp(value, "Irrelevant"))
		return 0; /* declared, or the answer to something that we have not asked */
	if (k < 0) {
		iscsi_text_put(&l->out, key, "NotUnderstood");
		return 0;
	}
	if (l->have & 1U << k)
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR); /* negotiated once (RFC 7143 6.3) */
	l->have |= 1U << k;
	if (l->c->is_discovery && keys[k].not_in_discovery) {
		iscsi_text_put(&l->out, key, "Irrelevant");
		return 0;
	}
	switch (keys[k].kind) {
	case BY_LIST:
		list_answer(l, (enum login_key)k, value);
		break;
	case BY_MIN:
	case BY_MAX:
	case DECLARED:
		number_answer(l, (enum login_key)k, value);
		break;
	case IRRELEVANT:
		iscsi_text_put(&l->out, key, "Irrelevant");
		break;
	case REPORTING:
		iscsi_text_put(&l->out, key, iscsi_text_list_has(value, "RFC3720") ? "RFC3720" : "Reject");
		break;
	default:
		bool_answer(l, (enum login_key)k, value);
		break;
	}
	return 0;
}

void login_declare(struct login *l)
{
	if (l->declared)
		return;
	l->declared = true;
	iscsi_text_putf(&l->out, "MaxRecvDataSegmentLength", "%u", ISCSI_SEGMENT_MAX);
}
