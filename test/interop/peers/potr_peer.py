#!/usr/bin/python3
"""potr_peer: an OTR peer on python-potr 1.0.2 (version 2 only), driven by lines, for
interoperability tests. SPDX-License-Identifier: GPL-3.0-or-later

  /usr/bin/python3 potr_peer.py --key FILE --v2 [--tag] [--frag N]

Needs Debian's python3-potr and python3-pycryptodome. Arguments, commands and events
are those of libotr_peer.c, which describes them; --instance is taken and ignored
(version 2 has no instance tags), --v3 is taken and cannot be met.

What a test author must know of python-potr 1.0.2 (Debian 12):
- Mended in here: AES-CTR and DSA on pycryptodome. Done here because potr leaves it to
  the program: the query after an OTR error, and the SMP events.
- Messages of version 3, malformed ones, and broken fragments are not known to it: they
  come as "clear", the whole "?OTR..." message.
- Wrong SMP secrets: where the protocol has the answerer send its last message, potr
  sends an abort, and as the one who asked it sends one more at the end. So against potr
  the one who asked sees "smp abort" instead of "smp failure", and the one who answered
  sees "smp failure" and then "smp abort". potr itself says "smp failure" in both.
- Crossing key exchanges: potr always yields to a D-H Commit. Measured, with libotr it
  never completes and with otr.js by chance; both wait until one sends a query again.
- symkey: potr takes the key from the key exchange, not from the message's keys. It is
  right only as long as the keys of the key exchange are in use: for the first
  message after it. Later the two sides' keys differ; that is potr's fault.
- A data message that cannot be read inside a private conversation is "unreadable", and
  no OTR error is sent. Outside one an OTR error is sent, without a space after the
  colon. An unknown TLV type makes the whole message unreadable.
- It goes on sending whitespace tags for ever, and starts on a tag even while private.
  Text behind a whitespace tag is lost.
- A text in the finished state is not sent: "error".
- A key exchange that is broken off (bad signature, bad MAC) is "unreadable".
- Fragments work both ways; --frag N holds for all but queries and plain texts.
- No progress events, no "reflected", and poll does nothing.
- secure comes before the "wire" of the last key exchange message.
"""
import logging
import re
import secrets
import sys

import potr.compatcrypto.common as common
import potr.compatcrypto.pycrypto as pycrypto
import potr.context
import potr.crypt
import potr.proto
from Cryptodome.Cipher import AES
from potr.utils import bytes_to_long, long_to_bytes, read_mpi

ACCOUNT = 'peer@example.org'


# ---- mending potr for pycryptodome --------------------------------------------
# potr was written for PyCrypto. pycryptodome has neither a callable as AES-CTR
# counter nor DSA with raw hashes, so these two are replaced.

def aes_ctr(key, counter=0):
    if not isinstance(counter, pycrypto.Counter):
        counter = pycrypto.Counter(counter)
    return AES.new(key, AES.MODE_CTR, nonce=counter.byteprefix(), initial_value=counter.val)


class DSAKey(common.PK):
    """A DSA key as OTR has it: the hash is signed as it is, as one number."""
    keyType = 0x0000

    def __init__(self, p, q, g, y, x=None):
        self.p, self.q, self.g, self.y, self.x = p, q, g, y, x

    @classmethod
    def parsePayload(cls, data, private=False):
        numbers = []
        for _ in range(5 if private else 4):
            n, data = read_mpi(data)
            numbers.append(n)
        return cls(*numbers), data

    def getPublicPayload(self):
        return self.p, self.q, self.g, self.y

    def getPrivatePayload(self):
        return self.p, self.q, self.g, self.y, self.x

    def fingerprint(self):
        return pycrypto.SHA1(self.getSerializedPublicPayload())

    def sign(self, data):
        while True:
            k = 1 + secrets.randbelow(self.q - 1)
            r = pow(self.g, k, self.p) % self.q
            s = pow(k, -1, self.q) * (bytes_to_long(data) + self.x * r) % self.q
            if r and s:
                return long_to_bytes(r, 20) + long_to_bytes(s, 20)

    def verify(self, data, signature):
        r, s = bytes_to_long(signature[:20]), bytes_to_long(signature[20:])
        if not (0 < r < self.q and 0 < s < self.q):
            return False
        w = pow(s, -1, self.q)
        u1, u2 = bytes_to_long(data) * w % self.q, r * w % self.q
        return pow(self.g, u1, self.p) * pow(self.y, u2, self.p) % self.p % self.q == r


potr.crypt.AESCTR = aes_ctr
common.registerkeytype(DSAKey)


# ---- input and output -----------------------------------------------------------

class CommandError(Exception):
    pass


def event(*words):
    print(*words)


def to_hex(data):
    return data.hex() or '-'


def from_hex(word):
    if word == '-':
        return b''
    if not re.fullmatch('([0-9a-f]{2})+', word):
        raise CommandError('not hex: ' + word[:40])
    return bytes.fromhex(word)


def error_event(text):
    event('error', to_hex(text if isinstance(text, bytes) else text.encode()))


def read_key(path):
    """The key of ACCOUNT from a file in libotr's format."""
    with open(path, encoding='latin-1') as f:
        text = f.read()
    for part in re.split(r'\(account\b', text)[1:]:
        name = re.search(r'\(name\s+(?:"([^"]*)"|([^\s()]+))\s*\)', part)
        if not name or (name[1] or name[2]) != ACCOUNT:
            continue
        numbers = {}
        for letter in 'pqgyx':
            number = re.search(r'\(' + letter + r'\s+#([0-9A-Fa-f\s]+)#', part)
            if not number:
                raise CommandError('no %s in the key of %s' % (letter, ACCOUNT))
            numbers[letter] = int(re.sub(r'\s', '', number[1]), 16)
        return DSAKey(**numbers)
    raise CommandError('no key of %s in the key file' % ACCOUNT)


# ---- the conversation -----------------------------------------------------------

class Account(potr.context.Account):
    def __init__(self, options):
        super().__init__(ACCOUNT, 'prpl-jabber', options.frag, options.key)
        self.options = options

    def saveTrusts(self):
        pass


class Context(potr.context.Context):
    def __init__(self, account):
        super().__init__(account, 'other@example.org')
        self.private_with = None  # the fingerprint of the present private conversation

    def getPolicy(self, key):
        if key == 'ALLOW_V2':
            return self.user.options.v2
        if key == 'SEND_TAG':
            return self.user.options.tag
        return key in ('WHITESPACE_START_AKE', 'ERROR_START_AKE')

    def inject(self, msg, appdata=None):
        event('wire', to_hex(msg))

    def setState(self, newstate):
        super().setState(newstate)
        if newstate == potr.context.STATE_ENCRYPTED:
            fp = self.getCurrentKey().cfingerprint()
            self.crypto.smp = None  # potr would go on with a run under the old session id
            event('secure', fp, 2, int(fp == self.private_with))
            self.private_with = fp
        else:
            self.private_with = None
            if newstate == potr.context.STATE_FINISHED:
                event('finished')

    def processTLVs(self, tlvs, appdata=None):
        """One at a time, to tell what each did. potr tells nothing itself."""
        for tlv in tlvs:
            smp = self.crypto.smp
            before = smp.state if smp else 1
            super().processTLVs([tlv], appdata=appdata)
            if isinstance(tlv, potr.proto.SMPTLV):
                self.smp_event(tlv, before)
            elif isinstance(tlv, potr.proto.ExtraKeyTLV):
                event('symkey', bytes_to_long(tlv.appid), to_hex(self.crypto.extraKey), to_hex(tlv.appdata))

    def smp_event(self, tlv, before):
        smp, proto = self.crypto.smp, potr.proto
        # The state in which potr takes each message; any other is out of turn.
        expected = {proto.SMP1TLV: 1, proto.SMP1QTLV: 1, proto.SMP2TLV: 2, proto.SMP3TLV: 3, proto.SMP4TLV: 4}
        if isinstance(tlv, proto.SMPABORTTLV) or before != expected[type(tlv)]:
            event('smp abort')
        elif smp.prog == potr.crypt.SMPPROG_CHEATED:
            event('smp cheated')
        elif isinstance(tlv, proto.SMP1QTLV):
            event('smp question', to_hex(tlv.msg))
        elif isinstance(tlv, proto.SMP1TLV):
            event('smp ask')
        elif smp.prog == potr.crypt.SMPPROG_SUCCEEDED:
            event('smp success')
        elif smp.prog == potr.crypt.SMPPROG_FAILED:
            event('smp failure')

    def smp_pending(self):
        return self.crypto.smp is not None and self.crypto.smp.state == 0


class Peer:
    def __init__(self, options):
        self.options = options
        self.account = Account(options)
        self.restart()

    def restart(self):
        self.context = Context(self.account)

    def need_private(self):
        if self.context.state != potr.context.STATE_ENCRYPTED:
            raise CommandError('no private conversation')

    def recv(self, word):
        message = from_hex(word)
        try:
            text, _ = self.context.receiveMessage(message)
            if text is not None:
                event('plain', to_hex(text))
        except (potr.context.NotOTRMessage, potr.context.UnencryptedMessage) as err:
            event('clear', to_hex(err.args[0]))
        except potr.context.ErrorReceived as err:
            error_event(err.args[0].error.lstrip(b' '))
            # ERROR_START_AKE, which potr leaves to the program.
            self.query()
        except (potr.context.NotEncryptedError, potr.crypt.InvalidParameterError, potr.proto.UnknownTLV):
            event('unreadable')
        except Exception as err:  # potr choked on a message
            error_event('exception: %r' % err)

    def send(self, word):
        text = from_hex(word)
        try:
            rest = self.context.sendMessage(potr.context.FRAGMENT_SEND_ALL, text)
        except potr.context.NotEncryptedError:
            error_event('not sent: the other side has ended the private conversation')
            return
        if rest is not None:  # not encrypted: it goes as it is
            event('wire', to_hex(rest))

    def query(self):
        event('wire', to_hex(self.account.getDefaultQueryMessage(self.context.getPolicy)))

    def end(self):
        if self.context.state != potr.context.STATE_PLAINTEXT:
            self.context.disconnect()

    def poll(self):
        pass

    def instance(self, word):
        if not re.fullmatch('[0-9a-fA-F]{8}', word):
            raise CommandError('instance HEX8')
        self.restart()

    def fingerprint(self):
        event('fp', self.options.key.cfingerprint())

    def symkey(self, use, word):
        data = from_hex(word)
        if not use.isdigit() or int(use) > 0xffffffff:
            raise CommandError('symkey USE HEX')
        self.need_private()
        key = self.context.getExtraKey(int(use).to_bytes(4, 'big'), data)
        event('symkey', use, to_hex(key), word)

    def smp_start(self, secret):
        secret = from_hex(secret)
        self.need_private()
        self.context.smpInit(secret)

    def smp_ask(self, question, secret):
        question, secret = from_hex(question), from_hex(secret)
        self.need_private()
        self.context.smpInit(secret, question)

    def smp_answer(self, secret):
        secret = from_hex(secret)
        self.need_private()
        if not self.context.smp_pending():
            raise CommandError('no SMP question pending')
        self.context.smpGotSecret(secret)

    def smp_abort(self):
        self.need_private()
        self.context.smpAbort()

    # command: how many words follow
    COMMANDS = {'recv': 1, 'send': 1, 'query': 0, 'end': 0, 'poll': 0, 'restart': 0, 'instance': 1,
                'fingerprint': 0, 'symkey': 2, 'smp_start': 1, 'smp_ask': 2, 'smp_answer': 1, 'smp_abort': 0}

    def run(self, line):
        words = line.split()
        if words[:1] == ['smp'] and len(words) > 1:
            words[:2] = ['smp_' + words[1]]
        name, words = words[0] if words else '', words[1:]
        if name not in self.COMMANDS:
            raise CommandError('unknown command')
        if len(words) != self.COMMANDS[name]:
            raise CommandError(name + ': wrong number of words')
        getattr(self, name)(*words)


# ---- start ----------------------------------------------------------------------

class Options:
    def __init__(self, args):
        self.key, self.v2, self.v3, self.tag, self.frag = None, False, False, False, 0
        args = list(args)
        while args:
            option = args.pop(0)
            if option in ('--v2', '--v3', '--tag'):
                setattr(self, option[2:], True)
            elif option in ('--key', '--instance', '--frag') and args:
                value = args.pop(0)
                if option == '--key':
                    self.key = read_key(value)
                elif option == '--frag':
                    self.frag = int(value)
                    if self.frag != 0 and self.frag < 64:
                        raise CommandError('--frag wants 0 or at least 64')
            else:
                raise CommandError('bad argument: ' + option)
        if self.key is None:
            raise CommandError('--key FILE is missing')
        if not self.v2:
            raise CommandError('potr knows version 2 only: --v2 is missing')


def main():
    logging.disable(logging.CRITICAL)  # potr logs what it makes of bad messages
    try:
        peer = Peer(Options(sys.argv[1:]))
    except (CommandError, OSError, ValueError) as err:
        print('err', err)
        sys.exit(2)
    for line in sys.stdin:
        line = line.rstrip('\n')
        if line == 'quit':
            print('ok', flush=True)
            break
        try:
            peer.run(line)
            print('ok', flush=True)
        except CommandError as err:
            print('err', err, flush=True)


main()
