/*
 * export.h: between the files of `ashlar export`.
 */
#ifndef FRONTENDS_CLI_EXPORT_H
#define FRONTENDS_CLI_EXPORT_H

#include "frontends/cli/cli.h"

extern const struct table cli_export_table;

extern const struct table cli_iscsi_table;

/* cmd_export_iscsi.c: the commands with --iscsi. */
int cli_export_iscsi_add(struct cli *cl);
int cli_export_iscsi_remove(struct cli *cl);
int cli_export_iscsi_list(struct cli *cl);
/* cmd_export_show_iscsi.c: row: of the export. An exit status. */
bool cli_iscsi_format_is_known(const char *format);
int cli_iscsi_format_show(struct cli *cl, const char *format, const json_t *status, const json_t *row);

/* The command `ashlar export show`. */
int cli_run_export_show(struct cli *cl);

#endif
