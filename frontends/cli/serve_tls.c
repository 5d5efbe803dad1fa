/*
 * What `ashlar serve` is told about TLS. Mistakes are refused at the start: nobody should believe that a pool is guarded when
 * it is not.
 */
#include <string.h>

#include "frontends/cli/serve.h"
#include "frontends/cli/session.h"

static int mode_set(struct serve_tls *t, const struct cli *cl, bool has_keys)
{
	const char *m = cli_has(cl, OPT_TLS) ? cl->values[OPT_TLS] : has_keys ? "on" : "off";

	if (strcmp(m, "off") && strcmp(m, "on") && strcmp(m, "require"))
		return cli_usage(cl, "--tls takes off, on or require");
	t->mode = m;
	t->is_required = !strcmp(m, "require");
	if (!has_keys && strcmp(m, "off"))
		return cli_usage(cl, "--tls %s needs --tls-certificates or --tls-psk", m);
	return 0;
}

int serve_tls_set(struct serve_tls *t, const struct cli *cl)
{
	struct tls_options o = { .cert_dir = cl->values[OPT_TLS_CERTS], .psk_file = cl->values[OPT_TLS_PSK],
				 .verify_peer = cli_has(cl, OPT_TLS_VERIFY) };
	bool has_keys = o.cert_dir || o.psk_file;
	struct err e = { 0 };
	int r = mode_set(t, cl, has_keys);

	if (r)
		return r;
	if (o.verify_peer && !o.cert_dir)
		return cli_usage(cl, "--tls-verify-peer needs --tls-certificates");
	if (cl->tls_allow.n && !o.verify_peer && !o.psk_file)
		return cli_usage(cl, "--tls-allow needs names that can be trusted: add --tls-verify-peer or --tls-psk");
	if (!strcmp(t->mode, "off"))
		return 0;
	r = tls_config_create(&o, &t->config, &e);
	if (r < 0)
		return cli_fail(&e);
	if (tls_config_is_stale(t->config, time(NULL), e.text, sizeof(e.text)))
		cli_log(NULL, e.text);
	return 0;
}
