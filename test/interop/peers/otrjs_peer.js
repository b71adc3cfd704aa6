#!/usr/bin/env node
// otrjs_peer: an OTR peer on the npm module otr 0.2.16 (pure JavaScript, versions 2
// and 3), driven by lines, for interoperability tests.
// SPDX-License-Identifier: GPL-3.0-or-later
//
//   npm ci && node otrjs_peer.js --key FILE [--instance HEX8] [--v2] [--v3] [--tag] [--frag N]
//
// Arguments, commands and events are those of libotr_peer.c, which describes them.
//
// What a test author must know of otr 0.2.16:
// - Mended in here (see the comments at each place): the loss of leading zeros of the
//   key r, which broke one key exchange in sixteen; the number of our key after a second
//   key exchange, without which nothing could be read after "end" and a new start; the
//   SMP state with an old session id after a new key exchange.
// - The module remembers the other side's first instance tag. From an instance change of
//   the other side on it answers "Received a message intended for a different session."
//   or sends to the old instance, until "restart" here.
// - The query is bare, "?OTRv23?", without a text for people.
// - A query that comes while private makes data messages unreadable both ways until the
//   key exchange is done.
// - A text sent in the finished state gives "error" and is kept: it goes out, encrypted,
//   with the next key exchange, even after "end".
// - Its OTR errors are "?OTR Error:An OTR error has occurred.", without a space and
//   without a reason; so is the "error" for broken key exchange messages.
// - Only one text without OTR in it ends the sending of whitespace tags, until "end".
// - Texts must be UTF-8: other bytes become U+FFFD, or "error exception" if they came
//   encrypted. Secrets and questions too. An empty SMP secret is an "error".
// - A message with "?OTR" in it that is no OTR message, or of a version not allowed, is
//   an "error exception: Cannot read properties of undefined", not "clear": the module
//   fails on it. An empty message brings no event at all.
// - SMP: no progress events, no "smp cheated": a false proof is "smp abort" and an abort
//   sent. "smp start" in the middle of a run first sends an abort ("smp abort" at the
//   other side, perhaps with its own answer to it). When the other side starts a run in
//   the middle of one, the answer is an abort.
// - symkey: the module itself sends only use 1, in version 3, and does not tell the use it
//   receives. Here the TLV is made and read by hand; the key is the module's.
// - --frag: the module counts only what is inside a fragment; 36 bytes (version 2 alone:
//   18) are taken off here, so no message is longer than N. Queries are short, and texts
//   outside OTR are never split.
// - Reflected messages are not noticed: no "reflected".
// - Crossing key exchanges: it yields where its hash is the lower. Measured: with itself,
//   and with libotr in version 3, always done; with libotr in version 2 and with potr
//   only by chance, and then both wait until one sends a query again.
// - It is slow: 0.2 seconds for a key exchange, one for an SMP run.
'use strict'

const fs = require('fs')
const readline = require('readline')
const { OTR, DSA } = require('otr')
const BigInteger = require('otr/vendor/bigint.js')

const ACCOUNT = 'peer@example.org'

class CommandError extends Error {}

// ---- mending the module ---------------------------------------------------------

// The module treats the 128-bit AES key r of a key exchange as a number and loses its
// leading zeros: one exchange in sixteen fails, whoever starts it. So r always begins
// with a one bit here, and is written with all its 32 hex digits (nothing else is
// written in base 16).
const { randBigInt, bigInt2str } = BigInteger
BigInteger.randBigInt = (bits, high) => randBigInt(bits, bits === 128 ? 1 : high)
BigInteger.bigInt2str = (x, base) => bigInt2str(x, base).padStart(base === 16 ? 32 : 0, '0')

// ---- output ------------------------------------------------------------------

// Output is collected per command and written at once, so that nothing is lost and
// the order stays as the library made it.
let out = []

function event (...words) {
  out.push(words.join(' '))
}

function hexOf (bytes) {
  return bytes.length ? bytes.toString('hex') : '-'
}

const hexText = (text) => hexOf(Buffer.from(text, 'utf8'))
const hexRaw = (latin1) => hexOf(Buffer.from(latin1, 'latin1'))

function flush (lastLine) {
  out.push(lastLine)
  // A synchronous write: the process may be told to quit next.
  fs.writeSync(1, out.join('\n') + '\n')
  out = []
}

// ---- input -------------------------------------------------------------------

function unhex (word) {
  if (word === '-') return Buffer.alloc(0)
  if (!/^([0-9a-f]{2})+$/.test(word)) throw new CommandError('not hex: ' + word.slice(0, 40))
  return Buffer.from(word, 'hex')
}

// The module takes and gives JavaScript strings and turns them into UTF-8 itself.
const untext = (word) => unhex(word).toString('utf8')

function parseInstance (word) {
  if (!/^[0-9a-f]{8}$/i.test(word || '') || parseInt(word, 16) < 0x100) {
    throw new CommandError('an instance tag is eight hex digits, 00000100 or more')
  }
  return Buffer.from(word, 'hex').toString('latin1')
}

// readKey takes the key of ACCOUNT from a file in libotr's format. (The module's own
// DSA.parsePrivate(text, true) only finds the first key, whoever has it.)
function readKey (file) {
  const text = fs.readFileSync(file, 'latin1')
  for (const part of text.split(/\(account\b/).slice(1)) {
    const name = /\(name\s+(?:"([^"]*)"|([^\s()]+))\s*\)/.exec(part)
    if (!name || (name[1] || name[2]) !== ACCOUNT) continue
    let packed = '0000' // the key type, DSA
    for (const letter of 'pqgyx') {
      const number = new RegExp('\\(' + letter + '\\s+#([0-9A-Fa-f\\s]+)#').exec(part)
      if (!number) throw new CommandError('no ' + letter + ' in the key of ' + ACCOUNT)
      let digits = number[1].replace(/\s/g, '').replace(/^(00)+/, '')
      if (digits.length % 2) digits = '0' + digits
      packed += (digits.length / 2).toString(16).padStart(8, '0') + digits
    }
    return DSA.parsePrivate(Buffer.from(packed, 'hex').toString('base64'))
  }
  throw new CommandError('no key of ' + ACCOUNT + ' in the key file')
}

// ---- the conversation --------------------------------------------------------

// The longest header and trailer around a fragment, "?OTR|8|8,65535,65535,...,". The
// module's fragment_size counts only what is between them.
const FRAGMENT_OVERHEAD = { 2: 18, 3: 36 }

const settings = { v2: false, v3: false, tag: false, frag: 0, key: null, instance: null }
let otr
let smpPending // the other side waits for an answer to its SMP question
let privateWith // the fingerprint of the present private conversation, or null

function freshConversation () {
  smpPending = false
  privateWith = null
  const options = {
    priv: settings.key,
    fragment_size: settings.frag ? settings.frag - FRAGMENT_OVERHEAD[settings.v3 ? 3 : 2] : 0
  }
  if (settings.instance) options.instance_tag = settings.instance
  otr = new OTR(options)
  settings.instance = otr.our_instance_tag // a restart keeps a random one
  otr.ALLOW_V2 = settings.v2
  otr.ALLOW_V3 = settings.v3
  otr.SEND_WHITESPACE_TAG = settings.tag
  otr.WHITESPACE_START_AKE = true
  otr.ERROR_START_AKE = true

  otr.on('io', (message) => event('wire', hexText(message)))
  otr.on('ui', (text, encrypted) => event(encrypted ? 'plain' : 'clear', hexText(text)))
  otr.on('status', onStatus)
  otr.on('smp', onSMP)
  otr.on('error', (text, severity) => {
    if (text === 'Received an unencrypted message.') return // its "clear" follows
    if (dataErrors !== null) dataErrors++
    else event('error', hexText(text.replace(/^ /, '')))
  })
  watchDataMessages()
}

function onStatus (status) {
  if (status === OTR.CONST.STATUS_AKE_SUCCESS) {
    const fp = otr.their_priv_pk.fingerprint()
    const version = otr.ake.otr_version.charCodeAt(1)
    event('secure', fp, version, privateWith === fp ? 1 : 0)
    privateWith = fp
    smpPending = false
    // In every key exchange but the first the module may announce the number of an old
    // key of ours and then send with the number of the latest one; the other side could
    // read nothing. The numbers begin anew with what was announced.
    otr.our_keyid = otr.ake.our_keyid + 1
    // The module keeps its SMP machine over a new key exchange, with the session id
    // of the old one in it: no SMP would ever succeed again.
    otr.sm = null
  } else if (status === OTR.CONST.STATUS_END_OTR) {
    privateWith = null
    smpPending = false
    if (otr.msgstate === OTR.CONST.MSGSTATE_FINISHED) event('finished')
  }
}

function onSMP (kind, value) {
  if (kind === 'question') {
    smpPending = true
    if (value === undefined) event('smp ask')
    else event('smp question', hexText(value))
  } else if (kind === 'trust') {
    event(value ? 'smp success' : 'smp failure')
  } else if (kind === 'abort') {
    smpPending = false
    event('smp abort')
  }
}

let dataErrors = null // while a data message is handled: the errors it caused

// watchDataMessages tells "unreadable" from the module's other errors, and catches the
// extra symmetric key, of whose use the module does not tell.
function watchDataMessages () {
  const handleDataMsg = otr.handleDataMsg
  const handleTLVs = otr.handleTLVs
  otr.handleDataMsg = function (message) {
    dataErrors = 0
    try {
      const text = handleDataMsg.call(this, message)
      if (text === undefined && dataErrors > 0) event('unreadable')
      return text
    } finally {
      dataErrors = null
    }
  }
  otr.handleTLVs = function (tlvs, keys) {
    let rest = ''
    while (tlvs.length >= 4) {
      const type = (tlvs.charCodeAt(0) << 8) | tlvs.charCodeAt(1)
      const end = 4 + ((tlvs.charCodeAt(2) << 8) | tlvs.charCodeAt(3))
      if (type === 8 && end >= 8 && tlvs.length >= end) {
        const use = parseInt(hexRaw(tlvs.slice(4, 8)), 16)
        event('symkey', use, hexRaw(keys.extra_symkey), hexRaw(tlvs.slice(8, end)))
      } else {
        rest += tlvs.slice(0, end)
      }
      tlvs = tlvs.slice(end)
    }
    return handleTLVs.call(this, rest, keys)
  }
}

// settled waits until the module has sent what it queued: it sends with setTimeout.
async function settled () {
  while (otr.outgoing.length) await new Promise((resolve) => setTimeout(resolve, 0))
}

// ---- commands ----------------------------------------------------------------

function needPrivate () {
  if (otr.msgstate !== OTR.CONST.MSGSTATE_ENCRYPTED) throw new CommandError('no private conversation')
}

function startSMP (question, secret) {
  needPrivate()
  // While the module waits for our answer, smpSecret would give that answer.
  quietly('smp abort', () => {
    if (smpPending) otr.sm.abort()
    smpPending = false
    otr.smpSecret(secret, question)
  })
}

const commands = {
  recv (hex) { otr.receiveMsg(untext(hex)) },
  send (hex) { otr.sendMsg(untext(hex)) },
  query () { otr.sendQueryMsg() },
  end () { otr.endOtr() },
  poll () {},
  restart () { freshConversation() },
  instance (word) {
    settings.instance = parseInstance(word)
    freshConversation()
  },
  fingerprint () { event('fp', settings.key.fingerprint()) },
  symkey (use, hex) {
    if (!/^[0-9]+$/.test(use) || use > 0xffffffff) throw new CommandError('symkey USE HEX')
    const data = unhex(hex)
    needPrivate()
    // The module's own sendFile only knows use 1 and version 3.
    const head = Buffer.alloc(9)
    head.writeUInt16BE(8, 1)
    head.writeUInt16BE(4 + data.length, 3)
    head.writeUInt32BE(Number(use), 5)
    const key = otr.sessKeys[1][0].extra_symkey
    otr.io(otr.prepareMsg(Buffer.concat([head, data]).toString('latin1')))
    event('symkey', use, hexRaw(key), hexOf(data))
  },
  'smp start' (secret) { startSMP(undefined, untext(secret)) },
  'smp ask' (question, secret) { startSMP(untext(question), untext(secret)) },
  'smp answer' (secret) {
    secret = untext(secret)
    needPrivate()
    if (!smpPending) throw new CommandError('no SMP question pending')
    smpPending = false
    otr.smpSecret(secret)
  },
  'smp abort' () {
    needPrivate()
    if (!otr.sm) otr._smInit()
    smpPending = false
    quietly('smp abort', () => otr.sm.abort())
  }
}

// quietly runs f and drops the event that the module fires for our own action.
function quietly (dropped, f) {
  const before = out.length
  f()
  out = out.filter((line, i) => i < before || line !== dropped)
}

async function run (line) {
  let words = line.split(' ').filter((word) => word !== '')
  let name = words.shift()
  if (name === 'smp') name += ' ' + words.shift()
  if (!Object.hasOwn(commands, name)) throw new CommandError('unknown command')
  if (words.length !== commands[name].length) throw new CommandError(name + ': wrong number of words')
  try {
    commands[name](...words)
  } catch (err) {
    if (err instanceof CommandError) throw err
    event('error', hexText('exception: ' + err.message)) // the module choked on a message
  }
  await settled()
}

// ---- start -------------------------------------------------------------------

function parseArguments (args) {
  while (args.length) {
    const option = args.shift()
    if (option === '--v2') settings.v2 = true
    else if (option === '--v3') settings.v3 = true
    else if (option === '--tag') settings.tag = true
    else if (option === '--key' && args.length) settings.key = readKey(args.shift())
    else if (option === '--instance' && args.length) settings.instance = parseInstance(args.shift())
    else if (option === '--frag' && args.length) {
      settings.frag = Number(args.shift())
      if (!(settings.frag === 0 || settings.frag >= 64)) throw new CommandError('--frag wants 0 or at least 64')
    } else throw new CommandError('bad argument: ' + option)
  }
  if (!settings.key) throw new CommandError('--key FILE is missing')
  if (!settings.v2 && !settings.v3) throw new CommandError('--v2 or --v3 is missing')
}

async function main () {
  try {
    parseArguments(process.argv.slice(2))
    freshConversation()
  } catch (err) {
    flush('err ' + err.message)
    process.exit(2)
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line === 'quit') {
      flush('ok')
      break
    }
    try {
      await run(line)
      flush('ok')
    } catch (err) {
      flush('err ' + err.message)
    }
  }
  process.exit(0)
}

main()
