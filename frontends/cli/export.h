/*
 * export.h: between the files of `ashlar export`.
 */
#ifndef FRONTENDS_CLI_EXPORT_H
#define FRONTENDS_CLI_EXPORT_H

#include "frontends/cli/cli.h"

extern const struct table cli_export_table;

/* The command `ashlar export show`. */
int cli_run_export_show(struct cli *cl);

#endif
