/*
 * scsi_table.c: which operations there are. Whoever asks by REPORT SUPPORTED OPERATION CODES is told just what this table says, and a
 * CDB whose operation is not in it is refused.
 */
#include "frontends/iscsi/scsi_internal.h"

/* CDB usage data: the bits of bytes 1.. that are looked at. */
#define LBA4 0xff, 0xff, 0xff, 0xff
#define LBA8 LBA4, LBA4
#define LEN2 0xff, 0xff
#define LEN4 0xff, 0xff, 0xff, 0xff
#define GROUP 0x3f

#define PR_IN(sa_) \
	{OP_PERSISTENT_RESERVE_IN, 1, sa_, 10, ACCESS_OWN, 0, scsi_run_pr_in, {0x1f, 0, 0, 0, 0, 0, LEN2, 0}}
#define PR_OUT(sa_) \
	{OP_PERSISTENT_RESERVE_OUT, 1, sa_, 10, ACCESS_OWN, OPF_CO, scsi_run_pr_out, {0x1f, 0xff, 0, 0, LEN4, 0}}

static const struct scsi_op ops[] = {
	/* those that come all the time first */
	{OP_READ_10, 0, 0, 10, ACCESS_READ, OPF_ABORT_READ, scsi_run_read, {0xfe, LBA4, GROUP, LEN2, 0}},
	{OP_WRITE_10, 0, 0, 10, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE, scsi_run_write, {0xfe, LBA4, GROUP, LEN2, 0}},
	{OP_READ_16, 0, 0, 16, ACCESS_READ, OPF_ABORT_READ, scsi_run_read, {0xfe, LBA8, LEN4, GROUP, 0}},
	{OP_WRITE_16, 0, 0, 16, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE, scsi_run_write, {0xfe, LBA8, LEN4, GROUP, 0}},

	{OP_TEST_UNIT_READY, 0, 0, 6, ACCESS_UNRESERVED, 0, scsi_run_test_unit_ready, {0}},
	{OP_REQUEST_SENSE, 0, 0, 6, ACCESS_ANY, OPF_NO_ATTENTION, scsi_run_request_sense, {1, 0, 0, 0xff, 0}},
	{OP_READ_6, 0, 0, 6, ACCESS_READ, OPF_ABORT_READ, scsi_run_read, {0x1f, 0xff, 0xff, 0xff, 0}},
	{OP_WRITE_6, 0, 0, 6, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE, scsi_run_write, {0x1f, 0xff, 0xff, 0xff, 0}},
	{OP_INQUIRY, 0, 0, 6, ACCESS_ANY, OPF_NO_ATTENTION, scsi_run_inquiry, {1, 0xff, LEN2, 0}},
	{OP_MODE_SELECT_6, 0, 0, 6, ACCESS_REGISTERED, OPF_CO, scsi_run_mode_select, {0x11, 0, 0, 0xff, 0}},
	{OP_RESERVE_6, 0, 0, 6, ACCESS_OWN, 0, scsi_run_reserve, {0, 0, 0, 0, 0}},
	{OP_RELEASE_6, 0, 0, 6, ACCESS_OWN, 0, scsi_run_release, {0, 0, 0, 0, 0}},
	{OP_MODE_SENSE_6, 0, 0, 6, ACCESS_REGISTERED, 0, scsi_run_mode_sense, {8, 0xff, 0xff, 0xff, 0}},
	{OP_START_STOP_UNIT, 0, 0, 6, ACCESS_OWN, OPF_CO | OPF_LEAVE, scsi_run_start_stop, {1, 0, 0x0f, 0xf7, 0}},
	{OP_PREVENT_ALLOW, 0, 0, 6, ACCESS_OWN, 0, scsi_run_prevent_allow, {0, 0, 0, 3, 0}},
	{OP_READ_CAPACITY_10, 0, 0, 10, ACCESS_UNRESERVED, 0, scsi_run_read_capacity_10, {0}},
	{OP_WRITE_AND_VERIFY_10, 0, 0, 10, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_write_and_verify, {0xf6, LBA4, GROUP, LEN2, 0}},
	{OP_VERIFY_10, 0, 0, 10, ACCESS_READ, OPF_CO | OPF_LEAVE, scsi_run_verify, {0xf6, LBA4, GROUP, LEN2, 0}},
	{OP_PRE_FETCH_10, 0, 0, 10, ACCESS_READ, 0, scsi_run_pre_fetch, {2, LBA4, GROUP, LEN2, 0}},
	{OP_SYNCHRONIZE_CACHE_10, 0, 0, 10, ACCESS_WRITE, OPF_ABORT_READ, scsi_run_sync, {2, LBA4, GROUP, LEN2, 0}},
	{OP_WRITE_SAME_10, 0, 0, 10, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_write_same, {0xf8, LBA4, GROUP, LEN2, 0}},
	{OP_UNMAP, 0, 0, 10, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_unmap, {1, 0, 0, 0, 0, GROUP, LEN2, 0}},
	{OP_LOG_SENSE, 0, 0, 10, ACCESS_UNRESERVED, OPF_CO | OPF_LEAVE, scsi_run_log_sense, {0, 0xff, 0xff, 0, 0, 0, LEN2, 0}},
	{OP_MODE_SELECT_10, 0, 0, 10, ACCESS_REGISTERED, OPF_CO, scsi_run_mode_select, {0x11, 0, 0, 0, 0, 0, LEN2, 0}},
	{OP_RESERVE_10, 0, 0, 10, ACCESS_OWN, 0, scsi_run_reserve, {0, 0, 0, 0, 0, 0, 0, 0, 0}},
	{OP_RELEASE_10, 0, 0, 10, ACCESS_OWN, 0, scsi_run_release, {0, 0, 0, 0, 0, 0, 0, 0, 0}},
	{OP_MODE_SENSE_10, 0, 0, 10, ACCESS_REGISTERED, 0, scsi_run_mode_sense, {0x18, 0xff, 0xff, 0, 0, 0, LEN2, 0}},
	PR_IN(0), PR_IN(1), PR_IN(2), PR_IN(3),
	PR_OUT(0), PR_OUT(1), PR_OUT(2), PR_OUT(3), PR_OUT(4), PR_OUT(5), PR_OUT(6), PR_OUT(7),
	{OP_THIRD_PARTY_COPY_OUT, 1, SA_EXTENDED_COPY_LID1, 16, ACCESS_WRITE, OPF_CO, scsi_run_extended_copy,
	 {0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_THIRD_PARTY_COPY_OUT, 1, SA_POPULATE_TOKEN, 16, ACCESS_READ, OPF_CO, scsi_run_populate_token,
	 {0x1f, 0, 0, 0, 0, LEN4, LEN4, GROUP, 0}},
	{OP_THIRD_PARTY_COPY_OUT, 1, SA_WRITE_USING_TOKEN, 16, ACCESS_WRITE, OPF_WRITES | OPF_CO, scsi_run_write_using_token,
	 {0x1f, 0, 0, 0, 0, LEN4, LEN4, GROUP, 0}},
	{OP_THIRD_PARTY_COPY_IN, 1, SA_COPY_STATUS_LID1, 16, ACCESS_READ, 0, scsi_run_copy_status,
	 {0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_THIRD_PARTY_COPY_IN, 1, SA_COPY_PARAMETERS, 16, ACCESS_READ, 0, scsi_run_copy_parameters,
	 {0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_THIRD_PARTY_COPY_IN, 1, SA_COPY_FAILED_DETAILS, 16, ACCESS_READ, 0, scsi_run_copy_status,
	 {0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_THIRD_PARTY_COPY_IN, 1, SA_RECEIVE_ROD_TOKEN, 16, ACCESS_READ, 0, scsi_run_receive_token,
	 {0x1f, LEN4, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_COMPARE_AND_WRITE, 0, 0, 16, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_compare_and_write, {0xfa, LBA8, 0, 0, 0, 0xff, GROUP, 0}},
	{OP_WRITE_AND_VERIFY_16, 0, 0, 16, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_write_and_verify, {0xf6, LBA8, LEN4, GROUP, 0}},
	{OP_VERIFY_16, 0, 0, 16, ACCESS_READ, OPF_CO | OPF_LEAVE, scsi_run_verify, {0xf6, LBA8, LEN4, GROUP, 0}},
	{OP_PRE_FETCH_16, 0, 0, 16, ACCESS_READ, 0, scsi_run_pre_fetch, {2, LBA8, LEN4, GROUP, 0}},
	{OP_SYNCHRONIZE_CACHE_16, 0, 0, 16, ACCESS_WRITE, OPF_ABORT_READ, scsi_run_sync, {2, LBA8, LEN4, GROUP, 0}},
	{OP_WRITE_SAME_16, 0, 0, 16, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_write_same, {0xf9, LBA8, LEN4, GROUP, 0}},
	{OP_SERVICE_ACTION_IN_16, 1, SA_READ_CAPACITY_16, 16, ACCESS_UNRESERVED, 0, scsi_run_read_capacity_16,
	 {0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_SERVICE_ACTION_IN_16, 1, SA_GET_LBA_STATUS, 16, ACCESS_READ, OPF_CO | OPF_LEAVE, scsi_run_get_lba_status, {0x1f, LBA8, LEN4, 0, 0}},
	{OP_REPORT_LUNS, 0, 0, 12, ACCESS_ANY, OPF_NO_ATTENTION, NULL, {0, 0xff, 0, 0, 0, LEN4, 0, 0}},
	{OP_MAINTENANCE_IN, 1, SA_REPORT_TARGET_PORT_GROUPS, 12, ACCESS_UNRESERVED, 0, scsi_run_report_target_port_groups,
	 {0xff, 0, 0, 0, 0, LEN4, 0, 0}},
	{OP_MAINTENANCE_IN, 1, SA_REPORT_SUPPORTED_OPCODES, 12, ACCESS_UNRESERVED, 0, scsi_run_report_opcodes,
	 {0x1f, 0x87, 0xff, LEN2, LEN4, 0, 0}},
	{OP_MAINTENANCE_IN, 1, SA_REPORT_SUPPORTED_TMF, 12, ACCESS_UNRESERVED, 0, scsi_run_report_tmf, {0x1f, 0x80, 0, 0, 0, LEN4, 0, 0}},
	{OP_READ_12, 0, 0, 12, ACCESS_READ, OPF_ABORT_READ, scsi_run_read, {0xfe, LBA4, LEN4, GROUP, 0}},
	{OP_WRITE_12, 0, 0, 12, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE, scsi_run_write, {0xfe, LBA4, LEN4, GROUP, 0}},
	{OP_WRITE_AND_VERIFY_12, 0, 0, 12, ACCESS_WRITE, OPF_WRITES | OPF_LEAVE | OPF_CO, scsi_run_write_and_verify, {0xf6, LBA4, LEN4, GROUP, 0}},
	{OP_VERIFY_12, 0, 0, 12, ACCESS_READ, OPF_CO | OPF_LEAVE, scsi_run_verify, {0xf6, LBA4, LEN4, GROUP, 0}},
};

const struct scsi_op *scsi_op_at(size_t i)
{
	return i < ARRAY_LEN(ops) ? &ops[i] : NULL;
}

const struct scsi_op *scsi_op_find(const uint8_t *cdb, bool *opcode_known)
{
	size_t i;

	*opcode_known = false;
	for (i = 0; i < ARRAY_LEN(ops); i++) {
		if (ops[i].opcode != cdb[0])
			continue;
		*opcode_known = true;
		if (!ops[i].has_sa || ops[i].sa == (cdb[1] & 0x1f))
			return &ops[i];
	}
	return NULL;
}

/* ---- data-out ---- */

static uint64_t blocks_out(const uint8_t *cdb)
{
	switch (cdb[0]) {
	case OP_WRITE_6:
		return cdb[4] ? cdb[4] : 256;
	case OP_WRITE_10:
	case OP_WRITE_AND_VERIFY_10:
	case OP_VERIFY_10:
		return be_get16(cdb + 7);
	case OP_WRITE_12:
	case OP_WRITE_AND_VERIFY_12:
	case OP_VERIFY_12:
		return be_get32(cdb + 6);
	default:
		return be_get32(cdb + 10);
	}
}

uint64_t scsi_cdb_data_out(const uint8_t *cdb, uint16_t cdb_len, uint32_t block_bytes)
{
	bool known;
	const struct scsi_op *op = cdb_len ? scsi_op_find(cdb, &known) : NULL;

	if (!op || cdb_len < op->cdb_len)
		return UINT64_MAX;
	switch (cdb[0]) {
	case OP_WRITE_6:
	case OP_WRITE_10:
	case OP_WRITE_12:
	case OP_WRITE_16:
	case OP_WRITE_AND_VERIFY_10:
	case OP_WRITE_AND_VERIFY_12:
	case OP_WRITE_AND_VERIFY_16:
		return blocks_out(cdb) * block_bytes;
	case OP_VERIFY_10:
	case OP_VERIFY_12:
	case OP_VERIFY_16:
		if ((cdb[1] & 6) == 6)
			return blocks_out(cdb) ? block_bytes : 0;
		return cdb[1] & 2 ? blocks_out(cdb) * block_bytes : 0;
	case OP_WRITE_SAME_10:
		return block_bytes;
	case OP_WRITE_SAME_16:
		return cdb[1] & 1 ? 0 : block_bytes;
	case OP_COMPARE_AND_WRITE:
		return 2ULL * cdb[13] * block_bytes;
	case OP_MODE_SELECT_6:
		return cdb[4];
	case OP_MODE_SELECT_10:
	case OP_UNMAP:
		return be_get16(cdb + 7);
	case OP_PERSISTENT_RESERVE_OUT:
		return be_get32(cdb + 5);
	case OP_THIRD_PARTY_COPY_OUT:
		return be_get32(cdb + 10);
	default:
		return 0;
	}
}
