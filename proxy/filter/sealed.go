package filter

import (
	"encoding/base64"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"otrproxy/config"
	"otrproxy/stanza"
)

// What the client has encrypted itself, as it may leave. It is no ciphertext because a
// program says so: it is decoded, it has the structure of its kind with nothing beside and
// nothing behind, and its bytes are as random as ciphertext is (random.go).

// sealedOut is what may stand in a message, by the allowance that lets it pass.
var sealedOut = map[config.Allow]Table{
	config.OMEMO: { // XEP-0384, versions 0.3, 0.7 and 0.8
		"eu.siacs.conversations.axolotl": {"encrypted": {Sound: has("header", 1, "payload", 0), Own: Forms{
			"header": {Attrs: Attrs{"sid": deviceID}, Sound: has("key", -1, "iv", 1), Own: Forms{
				"key": {Attrs: Attrs{"rid": deviceID, "prekey": boolean}, Text: sealedAs(signalMessage)},
				"iv":  {Text: sealedAs(vector)}}},
			"payload": {Text: sealedAs(payloadChance.random)}}}},
		"urn:xmpp:omemo:1": {"encrypted": omemo2Out},
		"urn:xmpp:omemo:2": {"encrypted": omemo2Out},
	},
	config.OpenPGP: {
		"jabber:x:encrypted": {"x": {Text: armoredAs(openPGPMessage)}},      // XEP-0027
		"urn:xmpp:openpgp:0": {"openpgp": {Text: sealedAs(openPGPMessage)}}, // XEP-0373
	},
}

var omemo2Out = &Form{Sound: has("header", 1, "payload", 0), Own: Forms{
	"header": {Attrs: Attrs{"sid": deviceID}, Sound: has("keys", -1), Own: Forms{
		"keys": {Attrs: Attrs{"jid": account}, Sound: has("key", -1), Own: Forms{
			"key": {Attrs: Attrs{"rid": deviceID, "kex": boolean}, Text: sealedAs(omemo2Message)}}}}},
	"payload": {Text: sealedAs(func(b []byte) bool { return blocks(b) && payloadChance.random(b) })}}}

// signed is a signature by which somebody shows a key (XEP-0027).
var signed = Forms{"x": {Text: armoredAs(openPGPSignature)}}

// keysOut are the public keys of these encryptions, as their programs publish them (XEP-0384,
// XEP-0373). A device's label is what a person calls it: it is in published alone.
var keysOut = Table{
	"eu.siacs.conversations.axolotl": {
		"list": {Own: Forms{"device": {Attrs: Attrs{"id": deviceID}}}},
		"bundle": {Own: Forms{
			"signedPreKeyPublic":    {Attrs: Attrs{"signedPreKeyId": deviceID}, Text: sealedAs(curveKey)},
			"signedPreKeySignature": {Text: sealedAs(curveSignature)},
			"identityKey":           {Text: sealedAs(curveKey)},
			"prekeys":               {Own: Forms{"preKeyPublic": {Attrs: Attrs{"preKeyId": deviceID}, Text: sealedAs(curveKey)}}}}}},
	"urn:xmpp:omemo:1": omemo2Keys,
	"urn:xmpp:omemo:2": omemo2Keys,
	"urn:xmpp:openpgp:0": {
		"public-keys-list": {Own: Forms{"pubkey-metadata": {Attrs: Attrs{"v4-fingerprint": fingerprint, "v6-fingerprint": fingerprint, "date": stamp}}}},
		"pubkey":           {Attrs: Attrs{"date": stamp}, Own: Forms{"data": {Text: armoredAs(openPGPKey(mailbox))}}},
		"secretkey":        {Text: sealedAs(openPGPMessage)}},
}

var omemo2Keys = Forms{
	"devices": {Own: Forms{"device": {Attrs: Attrs{"id": deviceID}}}},
	"bundle": {Own: Forms{
		"spk":     {Attrs: Attrs{"id": deviceID}, Text: sealedAs(rawKey)},
		"spks":    {Text: sealedAs(curveSignature)},
		"ik":      {Text: sealedAs(rawKey)},
		"prekeys": {Own: Forms{"pk": {Attrs: Attrs{"id": deviceID}, Text: sealedAs(rawKey)}}}}},
}

var (
	deviceID    = matches(`[0-9]{1,10}`)
	account     = matches(`[^\s<>"'&/@]+@[^\s<>"'&/@]+`)
	fingerprint = matches(`[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}`)
)

// has is a check for how often children stand in an element: a name, and 1 for once, 0 for
// at most once, -1 for at least once.
func has(counts ...any) func(stanza.Element) bool {
	return func(el stanza.Element) bool {
		for i := 0; i < len(counts); i += 2 {
			n := 0
			for c := range el.Children() {
				if string(c.Local()) == counts[i].(string) {
					n++
				}
			}
			if want := counts[i+1].(int); want == 1 && n != 1 || want == 0 && n > 1 || want == -1 && n == 0 {
				return false
			}
		}
		return true
	}
}

// sealedAs is base64 of bytes of a kind; armoredAs may have OpenPGP's checksum behind it.
func sealedAs(kind func([]byte) bool) Check {
	return func(s []byte) bool {
		b, ok := decoded(string(s))
		return ok && kind(b)
	}
}

func armoredAs(kind func([]byte) bool) Check {
	return func(s []byte) bool {
		b, ok := unarmored(string(s))
		return ok && kind(b)
	}
}

// decoded reads base64: whole groups, the ends of lines between them alone, and no bit set
// that means nothing.
func decoded(s string) ([]byte, bool) {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		if lines[i] = strings.TrimSuffix(line, "\r"); len(lines[i])%4 != 0 || strings.ContainsRune(lines[i], '\r') {
			return nil, false
		}
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Join(lines, ""))
	return b, err == nil && len(b) > 0
}

// vector is an initialisation vector of AES in Galois/counter mode: 12 bytes, or 16 of
// older programs.
func vector(b []byte) bool { return (len(b) == 12 || len(b) == 16) && vectorChance.random(b) }

// blocks are whole blocks of AES.
func blocks(b []byte) bool { return len(b) >= 16 && len(b)%16 == 0 }

// sealedKey is an encrypted key of a message: 16 or 32 bytes and perhaps a code beside.
func sealedKey(b []byte) bool { return blocks(b) && len(b) <= 128 && keyChance.random(b) }

func rawKey(b []byte) bool { return len(b) == 32 && keyChance.random(b) }

// curveKey is a key as libsignal writes it, with its type before it.
func curveKey(b []byte) bool { return len(b) == 33 && b[0] == 5 && keyChance.random(b[1:]) }

func curveSignature(b []byte) bool { return len(b) == 64 && keyChance.random(b) }

// A field is one of a protocol buffer: a number, or bytes of a kind.
type field struct {
	bytes    func([]byte) bool // nil for a number, which some programs leave out where it is 0
	optional bool
}

// buffer reports whether bytes are a protocol buffer of these fields, each at most once.
func buffer(b []byte, fields map[protowire.Number]field) bool {
	seen := map[protowire.Number]bool{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		f, known := fields[number]
		if n < 0 || !known || seen[number] {
			return false
		}
		seen[number] = true
		b = b[n:]
		switch {
		case f.bytes == nil && kind == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || v > math.MaxUint32 || n != protowire.SizeVarint(v) {
				return false
			}
			b = b[n:]
		case f.bytes != nil && kind == protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || !f.bytes(v) {
				return false
			}
			b = b[n:]
		default:
			return false
		}
	}
	for number, f := range fields {
		if f.bytes != nil && !f.optional && !seen[number] {
			return false
		}
	}
	return true
}

// signalMessage is a key as OMEMO 0.3 has it: libsignal's SignalMessage, with its version
// before it and eight bytes of a code behind, or a PreKeySignalMessage around one.
func signalMessage(b []byte) bool { return plainSignal(b) || preKeySignal(b) }

func plainSignal(b []byte) bool {
	return len(b) > 9 && b[0]>>4 == 3 && buffer(b[1:len(b)-8], map[protowire.Number]field{
		1: {bytes: curveKey}, 2: {}, 3: {}, 4: {bytes: sealedKey}})
}

func preKeySignal(b []byte) bool {
	return len(b) > 1 && b[0]>>4 == 3 && buffer(b[1:], map[protowire.Number]field{
		1: {}, 2: {bytes: curveKey}, 3: {bytes: curveKey}, 4: {bytes: plainSignal}, 5: {}, 6: {}})
}

// omemo2Message is a key as OMEMO 2 has it: an OMEMOAuthenticatedMessage, or an
// OMEMOKeyExchange around one (XEP-0384 section 8).
func omemo2Message(b []byte) bool { return authenticated(b) || keyExchange(b) }

func authenticated(b []byte) bool {
	return buffer(b, map[protowire.Number]field{
		1: {bytes: func(b []byte) bool { return len(b) == 16 && keyChance.random(b) }},
		2: {bytes: func(b []byte) bool {
			return buffer(b, map[protowire.Number]field{1: {}, 2: {}, 3: {bytes: rawKey}, 4: {bytes: sealedKey, optional: true}})
		}}})
}

func keyExchange(b []byte) bool {
	return buffer(b, map[protowire.Number]field{1: {}, 2: {}, 3: {bytes: rawKey}, 4: {bytes: rawKey}, 5: {bytes: authenticated}})
}
