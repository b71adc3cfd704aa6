/* libotr_files: libotr's own reading and writing of its files, for interoperability
 * tests. SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   cc -O2 -Wall -o libotr_files libotr_files.c -lotr -lgcrypt
 *
 *   libotr_files generate FILE ACCOUNT PROTOCOL   a new key, added to a file of private keys
 *   libotr_files keys FILE                        a line for each: ACCOUNT PROTOCOL FINGERPRINT
 *   libotr_files fingerprints IN OUT              reads a file of fingerprints and writes it again
 *   libotr_files tag FILE ACCOUNT PROTOCOL        makes an instance tag, in a file of tags
 *   libotr_files tags IN OUT                      reads a file of tags and writes it again
 *
 * Names on the command line hold no blanks. Errors go to standard error, with exit
 * code 1.
 */
#include <gcrypt.h>
#include <libotr/proto.h> /* before instag.h, which needs it */
#include <libotr/instag.h>
#include <libotr/privkey.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *what, gcry_error_t err)
{
    if (!err)
        return;
    fprintf(stderr, "%s: %s\n", what, gcry_strerror(err));
    exit(1);
}

int main(int argc, char **argv)
{
    OtrlUserState us;
    OtrlPrivKey *k;
    char fingerprint[OTRL_PRIVKEY_FPRINT_HUMAN_LEN];
    const char *word = argc > 1 ? argv[1] : "";

    gcry_control(GCRYCTL_ENABLE_QUICK_RANDOM, 0);
    OTRL_INIT;
    us = otrl_userstate_create();
    if (strcmp(word, "generate") == 0 && argc == 5) {
        otrl_privkey_read(us, argv[2]); /* may not be there yet */
        check("generate", otrl_privkey_generate(us, argv[2], argv[3], argv[4]));
    } else if (strcmp(word, "keys") == 0 && argc == 3) {
        check("read", otrl_privkey_read(us, argv[2]));
        for (k = us->privkey_root; k; k = k->next) {
            if (!otrl_privkey_fingerprint(us, fingerprint, k->accountname, k->protocol))
                return 1;
            printf("%s %s %s\n", k->accountname, k->protocol, fingerprint);
        }
    } else if (strcmp(word, "fingerprints") == 0 && argc == 4) {
        check("read", otrl_privkey_read_fingerprints(us, argv[2], NULL, NULL));
        check("write", otrl_privkey_write_fingerprints(us, argv[3]));
    } else if (strcmp(word, "tag") == 0 && argc == 5) {
        otrl_instag_read(us, argv[2]); /* may not be there yet */
        check("generate", otrl_instag_generate(us, argv[2], argv[3], argv[4]));
    } else if (strcmp(word, "tags") == 0 && argc == 4) {
        check("read", otrl_instag_read(us, argv[2]));
        check("write", otrl_instag_write(us, argv[3]));
    } else {
        fprintf(stderr, "see the head of libotr_files.c\n");
        return 1;
    }
    otrl_userstate_free(us);
    return 0;
}
