/*
 * tls_priv.h: what tls.c and tls_config.c share.
 */
#ifndef ENGINE_IO_TLS_PRIV_H
#define ENGINE_IO_TLS_PRIV_H

#include <gnutls/gnutls.h>
#include "engine/io/tls.h"

struct tls_psk {
	char *name;
	gnutls_datum_t key;
};

struct tls_config {
	gnutls_certificate_credentials_t cert; /* NULL: none */
	gnutls_psk_server_credentials_t psk;   /* NULL: none */
	gnutls_priority_t priority;
	bool verify_peer;
	struct tls_psk *psks;
	size_t n_psks;
};

/* A session of the server with all of this set; NULL if GnuTLS has no memory. */
gnutls_session_t tls_session_create(const struct tls_config *c);
/* Who the client is, after the handshake: his certificate's common name and alternative names, or the name of his key,
 * each with a newline behind it. NULL: nobody in particular. The caller frees with xfree(). */
char *tls_session_names(gnutls_session_t session);

#endif
