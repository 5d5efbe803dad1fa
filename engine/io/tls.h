/*
 * tls.h: TLS, the server's side, by GnuTLS, as a stream over another one.
 *
 * No thread and no blocking: GnuTLS reads from and writes to buffers here, and the ciphertext goes through the stream
 * below like any other bytes. GnuTLS never runs on a coroutine's stack, which public-key arithmetic could overflow, but
 * on the reactor's own. Memory of a stream: TLS_STREAM_BYTES and what GnuTLS keeps.
 *
 * TLS 1.2 and 1.3; no renegotiation, no tickets, no early data.
 */
#ifndef ENGINE_IO_TLS_H
#define ENGINE_IO_TLS_H

#include <time.h>

#include "engine/io/net.h"

#define TLS_STREAM_BYTES (160u << 10)

/* Keys and rules. Read only after it has been made; used from all reactors. */
struct tls_config;

struct tls_options {
	const char *cert_dir; /* server-cert.pem and server-key.pem, ca-cert.pem (for verify_peer), ca-crl.pem (if there); or NULL */
	const char *psk_file; /* lines of NAME:HEXKEY; or NULL. One of the two, or both */
	bool verify_peer;     /* clients without a pre-shared key show a certificate that ca-cert.pem has signed, or are refused */
};

/* Control path: reads the files, now and never again. */
int tls_config_create(const struct tls_options *o, struct tls_config **out, struct err *e) __must_check;
/* Whether its certificate is none at this time (it has expired, or its time has not come): a sentence for whoever started the
 * server, since clients only end. Not an error: others may be served without it, and guests want their disks. */
bool tls_config_is_stale(const struct tls_config *c, time_t at, char *buf, size_t len);
/* No streams of it any more. */
void tls_config_destroy(struct tls_config *c);

/* A stream over `below`, which it takes over: closing it closes both. Nothing is sent before the handshake, and no other
 * operation is submitted before that has succeeded. */
struct stream *tls_stream_create(struct tls_config *c, struct stream *below);
/* Coroutine. 0, -ETIMEDOUT after deadline_ns, or -EPROTO and a sentence. The stream is good for nothing but
 * stream_close() after an error. Then stream.tls_names is set if the client has shown who he is. */
int tls_co_handshake(struct stream *s, uint64_t deadline_ns, struct err *e) __must_check;

#endif
