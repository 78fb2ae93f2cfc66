/* intel-ipsec-mb as a contender of speed.rs, which builds and starts this where the library is installed.
 *
 * A line "ALGORITHM TEXT_BYTES MILLISECONDS" on standard input is answered by "SEAL OPEN", nanoseconds per
 * packet: medians of passes over 256 packets of up to 2048 bytes with one key, or by "none" where the library
 * has not the algorithm. GCM is called packet by packet, the rest is submitted as jobs. */
#include <intel-ipsec-mb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PACKETS = 256, FRAME_BYTES = 2048, ESP_OFFSET = 290 };

static unsigned char frames[PACKETS][FRAME_BYTES] __attribute__((aligned(4096)));
static struct gcm_key_data gcm_key __attribute__((aligned(64)));
static unsigned char key[32], enc_keys[16 * 15] __attribute__((aligned(16))), dec_keys[16 * 15] __attribute__((aligned(16)));
static unsigned char inner[64] __attribute__((aligned(16))), outer[64] __attribute__((aligned(16)));
static unsigned char nonces[PACKETS][16], tags[PACKETS][32];
static IMB_MGR *mgr;

enum kind { GCM128, GCM256, CHACHA, CBC_SHA1, CBC_SHA256 };
struct algorithm { const char *name; enum kind kind; unsigned iv_bytes, icv_bytes; };
static const struct algorithm algorithms[] = {
    { "aes-128-gcm", GCM128, 8, 16 },
    { "aes-256-gcm", GCM256, 8, 16 },
    { "chacha20-poly1305", CHACHA, 8, 16 },
    { "aes-128-cbc-hmac-sha1", CBC_SHA1, 16, 12 },
    { "aes-128-cbc-hmac-sha256", CBC_SHA256, 16, 16 },
};

static void expand(const struct algorithm *a)
{
    unsigned char block[64];
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (unsigned char) (29 * i + 7);
    switch (a->kind) {
    case GCM128: IMB_AES128_GCM_PRE(mgr, key, &gcm_key); return;
    case GCM256: IMB_AES256_GCM_PRE(mgr, key, &gcm_key); return;
    case CHACHA: return;
    default: break;
    }
    IMB_AES_KEYEXP_128(mgr, key, enc_keys, dec_keys);
    for (int half = 0; half < 2; half++) {
        memset(block, half ? 0x5c : 0x36, sizeof block);
        for (unsigned i = 0; i < 20; i++)
            block[i] ^= key[i];
        if (a->kind == CBC_SHA1)
            IMB_SHA1_ONE_BLOCK(mgr, block, half ? outer : inner);
        else
            IMB_SHA256_ONE_BLOCK(mgr, block, half ? outer : inner);
    }
}

static void fill(IMB_JOB *job, const struct algorithm *a, unsigned i, unsigned text, int seal)
{
    unsigned char *packet = frames[i] + ESP_OFFSET;
    unsigned head = 8 + a->iv_bytes;
    job->cipher_direction = seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
    job->src = packet;
    job->dst = packet + head;
    job->cipher_start_src_offset_in_bytes = head;
    job->msg_len_to_cipher_in_bytes = text;
    job->auth_tag_output = seal ? packet + head + text : tags[i];
    job->auth_tag_output_len_in_bytes = a->icv_bytes;
    if (a->kind == CHACHA) {
        job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
        job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
        job->chain_order = seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
        job->enc_keys = job->dec_keys = key;
        job->key_len_in_bytes = 32;
        job->iv = nonces[i];
        job->iv_len_in_bytes = 12;
        job->hash_start_src_offset_in_bytes = head;
        job->msg_len_to_hash_in_bytes = text;
        job->u.CHACHA20_POLY1305.aad = packet;
        job->u.CHACHA20_POLY1305.aad_len_in_bytes = 8;
        return;
    }
    job->cipher_mode = IMB_CIPHER_CBC;
    job->hash_alg = a->kind == CBC_SHA1 ? IMB_AUTH_HMAC_SHA_1 : IMB_AUTH_HMAC_SHA_256;
    job->chain_order = seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
    job->enc_keys = enc_keys;
    job->dec_keys = dec_keys;
    job->key_len_in_bytes = 16;
    job->iv = packet + 8;
    job->iv_len_in_bytes = 16;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = head + text;
    job->u.HMAC._hashed_auth_key_xor_ipad = inner;
    job->u.HMAC._hashed_auth_key_xor_opad = outer;
}

static void pass(const struct algorithm *a, unsigned text, int seal)
{
    static struct gcm_context_data context;
    unsigned head = 8 + a->iv_bytes;
    if (a->kind == GCM128 || a->kind == GCM256) {
        for (unsigned i = 0; i < PACKETS; i++) {
            unsigned char *packet = frames[i] + ESP_OFFSET, *at = packet + head;
            unsigned char *tag = seal ? at + text : tags[i];
            if (a->kind == GCM128 && seal)
                IMB_AES128_GCM_ENC(mgr, &gcm_key, &context, at, at, text, nonces[i], packet, 8, tag, 16);
            else if (a->kind == GCM128)
                IMB_AES128_GCM_DEC(mgr, &gcm_key, &context, at, at, text, nonces[i], packet, 8, tag, 16);
            else if (seal)
                IMB_AES256_GCM_ENC(mgr, &gcm_key, &context, at, at, text, nonces[i], packet, 8, tag, 16);
            else
                IMB_AES256_GCM_DEC(mgr, &gcm_key, &context, at, at, text, nonces[i], packet, 8, tag, 16);
        }
    } else {
        unsigned completed = 0;
        for (unsigned i = 0; i < PACKETS; i++) {
            fill(IMB_GET_NEXT_JOB(mgr), a, i, text, seal);
            for (IMB_JOB *job = IMB_SUBMIT_JOB(mgr); job != NULL; job = IMB_GET_COMPLETED_JOB(mgr))
                completed++;
            if (imb_get_errno(mgr) != 0) {
                fprintf(stderr, "ipsec-mb: %s\n", imb_get_strerror(imb_get_errno(mgr)));
                exit(1);
            }
        }
        while (IMB_FLUSH_JOB(mgr) != NULL)
            completed++;
        if (completed != PACKETS) {
            fprintf(stderr, "ipsec-mb: %u of %d jobs completed\n", completed, PACKETS);
            exit(1);
        }
    }
    if (!seal)
        for (unsigned i = 0; i < PACKETS; i++)
            if (memcmp(tags[i], frames[i] + ESP_OFFSET + head + text, a->icv_bytes) != 0) {
                fprintf(stderr, "ipsec-mb: %s of %u bytes: packet %u does not open\n", a->name, text, i);
                exit(1);
            }
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double) t.tv_sec + (double) t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

int main(void)
{
    enum { MAX_SAMPLES = 65536 };
    static double seals[MAX_SAMPLES], opens[MAX_SAMPLES];
    char name[64];
    unsigned text, milliseconds;
    mgr = alloc_mb_mgr(0);
    if (mgr == NULL)
        return 1;
    init_mb_mgr_auto(mgr, NULL);
    for (unsigned i = 0; i < PACKETS; i++) {
        for (unsigned j = 0; j < FRAME_BYTES; j++)
            frames[i][j] = (unsigned char) (31 * i + 7 * j);
        memset(nonces[i], (int) i, sizeof nonces[i]);
    }
    while (scanf("%63s %u %u", name, &text, &milliseconds) == 3) {
        const struct algorithm *a = NULL;
        for (unsigned i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
            if (strcmp(name, algorithms[i].name) == 0)
                a = &algorithms[i];
        if (a == NULL || ESP_OFFSET + 64 + text > FRAME_BYTES) {
            puts("none");
            fflush(stdout);
            continue;
        }
        expand(a);
        unsigned samples = 0;
        double start = now_ns();
        while ((now_ns() - start < 1e6 * milliseconds || samples < 3) && samples < MAX_SAMPLES) {
            double begin = now_ns();
            pass(a, text, 1);
            double middle = now_ns();
            pass(a, text, 0);
            double end = now_ns();
            seals[samples] = (middle - begin) / PACKETS;
            opens[samples++] = (end - middle) / PACKETS;
        }
        qsort(seals, samples, sizeof *seals, ascending);
        qsort(opens, samples, sizeof *opens, ascending);
        printf("%.2f %.2f\n", seals[samples / 2], opens[samples / 2]);
        fflush(stdout);
    }
    return 0;
}
