/* scsi.c: commands in and out. */
#include <string.h>

#include "engine/base/base.h"
#include "frontends/iscsi/scsi.h"

struct scsi_target {
	struct ashlar *a;
};

struct scsi_nexus {
	struct scsi_target *t;
	struct scsi_nexus_conf conf;
	struct ashlar_attach *at;
};

struct stub_end {
	struct task task;
	struct scsi_cmd *c;
};

static void stub_run(struct task *t)
{
	struct stub_end *s = container_of(t, struct stub_end, task);
	struct scsi_cmd *c = s->c;

	xfree(s);
	c->done(c);
}

void scsi_cmd_fini(struct scsi_cmd *c)
{
}

static void stub_sense(struct scsi_cmd *c, uint8_t key, uint8_t asc)
{
	c->status = SCSI_CHECK_CONDITION;
	memset(c->sense, 0, sizeof(c->sense));
	c->sense[0] = 0x70;
	c->sense[2] = key;
	c->sense[7] = 10;
	c->sense[12] = asc;
	c->sense_len = 18;
}

void scsi_submit(struct scsi_cmd *c)
{
	struct stub_end *s = xcalloc(1, sizeof(*s));

	list_init(&s->task.link);
	s->task.run = stub_run;
	s->c = c;
	stub_sense(c, 5, 0x20);
	reactor_ready(&s->task);
}

uint64_t scsi_cdb_data_out(const uint8_t *cdb, uint16_t cdb_len, uint32_t block_bytes)
{
	return UINT64_MAX;
}

bool scsi_answer_without_lu(struct scsi_cmd *c, const struct scsi_lun_list *luns, bool is_mapped)
{
	if (is_mapped)
		return false;
	stub_sense(c, 5, 0x25);
	return true;
}

void scsi_lun_encode(uint16_t lun, uint8_t out[8])
{
	memset(out, 0, 8);
	out[0] = (uint8_t)(lun < 256 ? 0 : 0x40 | lun >> 8);
	out[1] = (uint8_t)lun;
}

int scsi_lun_decode(const uint8_t in[8])
{
	int i;

	for (i = 2; i < 8; i++)
		if (in[i])
			return -1;
	if ((in[0] & 0xc0) == 0x40)
		return (in[0] & 0x3f) << 8 | in[1];
	return in[0] ? -1 : in[1];
}

int scsi_co_tmf(struct scsi_nexus *n, enum scsi_tmf what, struct scsi_cmd *ref)
{
	return 0;
}

struct scsi_target *scsi_target_create(struct ashlar *a)
{
	struct scsi_target *t = xcalloc(1, sizeof(*t));

	t->a = a;
	return t;
}

void scsi_target_co_destroy(struct scsi_target *t)
{
	xfree(t);
}

static void on_gone(void *arg)
{
	struct scsi_nexus *n = arg;

	n->conf.ops->gone(n->conf.arg);
}

static void on_resized(void *arg)
{
}

static const struct ashlar_attach_ops attach_ops = {.gone = on_gone, .resized = on_resized};

int scsi_nexus_co_open(struct scsi_target *t, const char *export_name, const struct scsi_nexus_conf *c, struct scsi_nexus **out,
		       struct err *e)
{
	struct scsi_nexus *n = xcalloc(1, sizeof(*n));
	int r;

	n->t = t;
	n->conf = *c;
	r = ashlar_co_attach(t->a, export_name, &attach_ops, n, &n->at, e);
	if (r < 0) {
		xfree(n);
		return r;
	}
	*out = n;
	return 0;
}

void scsi_nexus_co_close(struct scsi_nexus *n)
{
	ashlar_co_detach(n->at);
	xfree(n);
}

struct reactor *scsi_nexus_home(const struct scsi_nexus *n)
{
	return ashlar_attach_home(n->at);
}

uint32_t scsi_nexus_block_bytes(const struct scsi_nexus *n)
{
	return ashlar_attach_bdev(n->at)->block_bytes;
}

void scsi_nexus_attention(struct scsi_nexus *n, uint8_t asc, uint8_t ascq)
{
}
