/*
 * Keys and certificates from files, and what is asked of clients.
 */
#include "engine/io/tls_priv.h"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PSK_FILE_MAX (1u << 20)
#define NAME_MAX_BYTES 255
#define NAMES_MAX 64

/* ---- certificates ---- */

static int path_of(const struct tls_options *o, const char *name, char *buf, size_t len, struct err *e)
{
	if ((size_t)snprintf(buf, len, "%s/%s", o->cert_dir, name) >= len)
		return err_set(e, -ENAMETOOLONG, "TLS: the path %.64s... is too long", o->cert_dir);
	if (access(buf, R_OK) < 0) {
		int r = -errno;

		return err_set(e, r, "TLS: cannot read %s: %s", buf, strerror(-r));
	}
	return 0;
}

static int ca_load(struct tls_config *c, const struct tls_options *o, struct err *e)
{
	char path[512];
	int r = path_of(o, "ca-cert.pem", path, sizeof(path), e);

	if (r == -ENOENT && !o->verify_peer)
		return 0;
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_trust_file(c->cert, path, GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return err_set(e, -EINVAL, "TLS: no certificates in %s: %s", path, r ? gnutls_strerror(r) : "it is empty");
	if (path_of(o, "ca-crl.pem", path, sizeof(path), NULL) == 0) {
		r = gnutls_certificate_set_x509_crl_file(c->cert, path, GNUTLS_X509_FMT_PEM);
		if (r < 0)
			return err_set(e, -EINVAL, "TLS: %s cannot be used: %s", path, gnutls_strerror(r));
	}
	return 0;
}

static int certs_load(struct tls_config *c, const struct tls_options *o, struct err *e)
{
	char cert[512], key[512];
	int r;

	if (gnutls_certificate_allocate_credentials(&c->cert) < 0)
		return err_set(e, -ENOMEM, "TLS: no memory");
	r = path_of(o, "server-cert.pem", cert, sizeof(cert), e);
	if (r == 0)
		r = path_of(o, "server-key.pem", key, sizeof(key), e);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_file(c->cert, cert, key, GNUTLS_X509_FMT_PEM);
	if (r < 0)
		return err_set(e, -EINVAL, "TLS: %s and %s cannot be used together: %s", cert, key, gnutls_strerror(r));
	return ca_load(c, o, e);
}

/* ---- pre-shared keys ---- */

static const struct tls_psk *psk_find(const struct tls_config *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->n_psks; i++)
		if (!strcmp(c->psks[i].name, name))
			return &c->psks[i];
	return NULL;
}

/* An unknown name gets a random key: it fails as a wrong key does, so names cannot be guessed one by one. */
static int psk_get(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
	const struct tls_psk *p = psk_find(gnutls_session_get_ptr(session), name);
	unsigned size = p ? p->key.size : 32;

	key->data = gnutls_malloc(size);
	if (!key->data)
		return -1;
	key->size = size;
	if (p)
		memcpy(key->data, p->key.data, size);
	else if (gnutls_rnd(GNUTLS_RND_NONCE, key->data, size) < 0)
		return -1;
	return 0;
}

static char *file_read(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = fd < 0 ? -errno : 0;
	char *text = NULL;
	size_t len = 0;
	ssize_t n = 1;

	if (fd >= 0)
		text = xmalloc(PSK_FILE_MAX);
	for (; r == 0 && n > 0 && len < PSK_FILE_MAX - 1; len += (size_t)n) {
		n = read(fd, text + len, PSK_FILE_MAX - 1 - len);
		if (n < 0) {
			r = -errno;
			n = 0;
		}
	}
	if (fd >= 0)
		close(fd);
	if (r < 0 || n > 0) {
		err_set(e, r < 0 ? r : -EFBIG, "TLS: cannot read the keys in %s: %s", path, r < 0 ? strerror(-r) : "more than 1 MiB");
		xfree(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

static int psk_add(struct tls_config *c, char *line, const char *path, unsigned number, struct err *e)
{
	char *colon = strchr(line, ':');
	gnutls_datum_t hex, key;

	if (!colon || colon == line || colon - line > NAME_MAX_BYTES)
		return err_set(e, -EINVAL, "TLS: %s, line %u: give NAME:HEXKEY", path, number);
	*colon = '\0';
	hex = (gnutls_datum_t){(unsigned char *)colon + 1, (unsigned)strlen(colon + 1)};
	if (hex.size < 2 || gnutls_hex_decode2(&hex, &key) < 0)
		return err_set(e, -EINVAL, "TLS: %s, line %u: the key of %s is not written as hexadecimal digits", path, number, line);
	if (psk_find(c, line)) {
		gnutls_free(key.data);
		return err_set(e, -EEXIST, "TLS: %s, line %u: there are two keys for %s", path, number, line);
	}
	c->psks = xrealloc(c->psks, (c->n_psks + 1) * sizeof(*c->psks));
	c->psks[c->n_psks].name = xstrdup(line);
	c->psks[c->n_psks++].key = key;
	return 0;
}

static int psks_load(struct tls_config *c, const struct tls_options *o, struct err *e)
{
	char *text = file_read(o->psk_file, e), *line, *rest = text;
	unsigned number = 0;
	int r = 0;

	if (!text)
		return e ? e->code : -EIO;
	while (r == 0 && (line = strsep(&rest, "\n"))) {
		number++;
		line[strcspn(line, "\r")] = '\0';
		if (*line && *line != '#')
			r = psk_add(c, line, o->psk_file, number, e);
	}
	gnutls_memset(text, 0, PSK_FILE_MAX);
	xfree(text);
	if (r == 0 && !c->n_psks)
		r = err_set(e, -EINVAL, "TLS: there is no key in %s: give lines of NAME:HEXKEY (psktool makes them)", o->psk_file);
	if (r < 0)
		return r;
	if (gnutls_psk_allocate_server_credentials(&c->psk) < 0)
		return err_set(e, -ENOMEM, "TLS: no memory");
	gnutls_psk_set_server_credentials_function(c->psk, psk_get);
	return 0;
}

/* ---- all of it ---- */

int tls_config_create(const struct tls_options *o, struct tls_config **out, struct err *e)
{
	static const char with_psk[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK";
	static const char without[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";
	struct tls_config *c = xcalloc(1, sizeof(*c));
	int r = 0;

	c->verify_peer = o->verify_peer;
	if (!o->cert_dir && !o->psk_file)
		r = err_set(e, -EINVAL, "TLS needs certificates or pre-shared keys");
	else if (o->verify_peer && !o->cert_dir)
		r = err_set(e, -EINVAL, "TLS: clients' certificates can be verified only with certificates of one's own");
	if (r == 0 && o->cert_dir)
		r = certs_load(c, o, e);
	if (r == 0 && o->psk_file)
		r = psks_load(c, o, e);
	if (r == 0 && gnutls_priority_init(&c->priority, o->psk_file ? with_psk : without, NULL) < 0)
		r = err_set(e, -EINVAL, "TLS: this GnuTLS knows none of the ciphers that are wanted");
	if (r < 0)
		tls_config_destroy(c);
	else
		*out = c;
	return r;
}

bool tls_config_is_stale(const struct tls_config *c, time_t at, char *buf, size_t len)
{
	gnutls_x509_crt_t *crts;
	time_t from, until;
	unsigned n;
	struct tm tm;
	char when[32];

	if (!c->cert || gnutls_certificate_get_x509_crt(c->cert, 0, &crts, &n) < 0)
		return false;
	from = gnutls_x509_crt_get_activation_time(crts[0]);
	until = gnutls_x509_crt_get_expiration_time(crts[0]);
	while (n)
		gnutls_x509_crt_deinit(crts[--n]);
	gnutls_free(crts);
	if (at >= from && at <= until)
		return false;
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M UTC", gmtime_r(at < from ? &from : &until, &tm));
	snprintf(buf, len, "TLS: the certificate in server-cert.pem %s %s: clients that verify it will refuse it until there is another",
		 at < from ? "is not valid before" : "has expired on", when);
	return true;
}

void tls_config_destroy(struct tls_config *c)
{
	size_t i;

	if (c->cert)
		gnutls_certificate_free_credentials(c->cert);
	if (c->psk)
		gnutls_psk_free_server_credentials(c->psk);
	if (c->priority)
		gnutls_priority_deinit(c->priority);
	for (i = 0; i < c->n_psks; i++) {
		gnutls_memset(c->psks[i].key.data, 0, c->psks[i].key.size);
		gnutls_free(c->psks[i].key.data);
		xfree(c->psks[i].name);
	}
	xfree(c->psks);
	xfree(c);
}

gnutls_session_t tls_session_create(const struct tls_config *c)
{
	static gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT,
	};
	gnutls_session_t s;

	if (gnutls_init(&s, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL) < 0)
		return NULL;
	gnutls_session_set_ptr(s, (void *)(uintptr_t)c);
	if (gnutls_priority_set(s, c->priority) < 0 || (c->cert && gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, c->cert) < 0) ||
	    (c->psk && gnutls_credentials_set(s, GNUTLS_CRD_PSK, c->psk) < 0)) {
		gnutls_deinit(s);
		return NULL;
	}
	if (c->verify_peer) {
		gnutls_certificate_server_set_request(s, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert2(s, &purpose, 1, 0);
	}
	return s;
}

/* ---- who it is ---- */

struct names {
	char *text;
	size_t len;
};

/* What could be taken for another name, or for more than one, is none. */
static void names_add(struct names *n, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return;
	if (!len || len > NAME_MAX_BYTES)
		return;
	n->text = xrealloc(n->text, n->len + len + 2);
	memcpy(n->text + n->len, name, len);
	n->len += len;
	n->text[n->len++] = '\n';
	n->text[n->len] = '\0';
}

static void names_of_cert(struct names *n, gnutls_x509_crt_t crt)
{
	char buf[NAME_MAX_BYTES + 1];
	size_t len = sizeof(buf);
	unsigned i;
	int r = gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, buf, &len);

	if (r >= 0)
		names_add(n, buf, len);
	for (i = 0; i < NAMES_MAX; i++) {
		len = sizeof(buf);
		r = gnutls_x509_crt_get_subject_alt_name(crt, i, buf, &len, NULL);
		if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (r == GNUTLS_SAN_DNSNAME || r == GNUTLS_SAN_RFC822NAME || r == GNUTLS_SAN_URI)
			names_add(n, buf, len);
	}
}

char *tls_session_names(gnutls_session_t session)
{
	const struct tls_config *c = gnutls_session_get_ptr(session);
	struct names n = {0};
	const gnutls_datum_t *chain;
	const char *psk;
	gnutls_x509_crt_t crt;
	unsigned len;

	if (gnutls_auth_client_get_type(session) == GNUTLS_CRD_PSK) {
		psk = gnutls_psk_server_get_username(session);
		if (psk)
			names_add(&n, psk, strlen(psk));
		return n.text;
	}
	chain = c->verify_peer ? gnutls_certificate_get_peers(session, &len) : NULL; /* else nobody has vouched for it */
	if (!chain || !len || gnutls_x509_crt_init(&crt) < 0)
		return NULL;
	if (gnutls_x509_crt_import(crt, chain, GNUTLS_X509_FMT_DER) >= 0)
		names_of_cert(&n, crt);
	gnutls_x509_crt_deinit(crt);
	return n.text;
}
