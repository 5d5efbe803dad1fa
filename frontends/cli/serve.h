/*
 * serve.h: the daemon: pools, the NBD server, the control socket, and an orderly end.
 */
#ifndef FRONTENDS_CLI_SERVE_H
#define FRONTENDS_CLI_SERVE_H

#include "frontends/cli/cli.h"

/* The command `ashlar serve`. Returns an exit status when the daemon has ended. */
int cli_serve(struct cli *cl);

/* HOST:PORT or unix:PATH that only this machine reaches. */
bool cli_addr_is_local(const char *addr);
/* The NBD socket beside a control socket: "unix:/run/ashlar/nbd.sock", "unix:/run/user/1000/ashlar-nbd.sock". */
void cli_addr_beside_control(const char *control, char *buf, size_t len);

#endif
