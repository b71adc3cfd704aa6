package filter

import (
	"encoding/binary"
	"math/bits"
)

// OpenPGP (RFC 4880, RFC 9580) as it may leave. What is read here is the framing, in
// forty lines: a library of OpenPGP would bring its ciphers along, decrypt where this has
// to look only, and skip what it does not know, which is what must not pass.

// A packet is one of OpenPGP.
type packet struct {
	tag  byte
	body []byte
}

// Tags of packets.
const (
	tagPKESK     = 1
	tagSignature = 2
	tagSKESK     = 3
	tagKey       = 6
	tagUserID    = 13
	tagSubkey    = 14
	tagSEIPD     = 18
	tagAEAD      = 20 // GnuPG's own
)

// packets reads all of the bytes as packets, in either framing.
func packets(b []byte) (all []packet, ok bool) {
	for len(b) > 0 {
		p := packet{}
		head := b[0]
		b = b[1:]
		switch {
		case head&0xc0 == 0xc0: // RFC 4880 section 4.2.2
			p.tag = head & 0x3f
			for partial := true; partial; {
				var n int
				if n, b, partial, ok = length(b); !ok || n > len(b) || partial && (n < 512 && p.body == nil || p.tag != tagSEIPD && p.tag != tagAEAD) {
					return nil, false
				}
				p.body, b = append(p.body, b[:n]...), b[n:]
			}
		case head&0x80 != 0: // section 4.2.1
			p.tag = head >> 2 & 0xf
			n := len(b)
			if kind := head & 3; kind < 3 {
				size := 1 << kind
				if len(b) < size {
					return nil, false
				}
				n = 0
				for _, c := range b[:size] {
					n = n<<8 | int(c)
				}
				b = b[size:]
			} else if p.tag != tagSEIPD { // up to the end
				return nil, false
			}
			if n > len(b) {
				return nil, false
			}
			p.body, b = b[:n], b[n:]
		default:
			return nil, false
		}
		all = append(all, p)
	}
	return all, len(all) > 0
}

// length reads a length of the new framing.
func length(b []byte) (n int, rest []byte, partial, ok bool) {
	switch {
	case len(b) == 0:
		return 0, nil, false, false
	case b[0] < 192:
		return int(b[0]), b[1:], false, true
	case b[0] < 224 && len(b) > 1:
		return (int(b[0])-192)<<8 + int(b[1]) + 192, b[2:], false, true
	case b[0] == 255 && len(b) > 4:
		return int(binary.BigEndian.Uint32(b[1:5])), b[5:], false, true
	case b[0] >= 224 && b[0] < 255:
		return 1 << (b[0] & 0x1f), b[1:], true, true
	}
	return 0, nil, false, false
}

// A cutter takes fields off the beginning of a packet; once it is short, it stays bad.
type cutter struct {
	b   []byte
	bad bool
}

func (c *cutter) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cutter) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cutter) done() bool { return !c.bad && len(c.b) == 0 }

func (c *cutter) check(ok bool) { c.bad = c.bad || !ok }

// secret takes bytes that only a key makes.
func (c *cutter) secret(n int) { c.check(keyChance.random(c.take(n))) }

// numbers takes multi-precision integers (RFC 4880 section 3.2), as long as they say.
func (c *cutter) numbers(count int) {
	for range count {
		size := c.take(2)
		if size == nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size))
		value := c.take((n + 7) / 8)
		c.check(len(value) > 0 && bits.Len8(value[0]) <= (n-1)%8+1 && keyChance.random(value))
	}
}

// short takes a field with its length before it.
func (c *cutter) short(limit int) {
	n := int(c.byte())
	c.check(n <= limit)
	c.secret(n)
}

// openPGPMessage is an encrypted message: keys for those who may read it, and the one
// ciphertext.
func openPGPMessage(b []byte) bool {
	all, ok := packets(b)
	if !ok || len(all) < 2 {
		return false
	}
	for i, p := range all {
		c := &cutter{b: p.body}
		switch last := i == len(all)-1; {
		case !last && p.tag == tagPKESK:
			c.forKey()
		case !last && p.tag == tagSKESK:
			c.forPassword()
		case last && (p.tag == tagSEIPD || p.tag == tagAEAD):
			c.ciphertext(p.tag)
		default:
			return false
		}
		if !c.done() {
			return false
		}
	}
	return true
}

// forKey is a session key for somebody's key (RFC 9580 section 5.1).
func (c *cutter) forKey() {
	switch c.byte() {
	case 3:
		c.take(8)
	case 6:
		n := int(c.byte())
		c.check(n == 0 || n == 21 || n == 33)
		c.take(n)
	default:
		c.bad = true
	}
	switch c.byte() {
	case 1, 2: // RSA
		c.numbers(1)
	case 16: // Elgamal
		c.numbers(2)
	case 18: // ECDH
		c.numbers(1)
		c.short(64)
	case 25: // X25519
		c.secret(32)
		c.short(64)
	case 26: // X448
		c.secret(56)
		c.short(64)
	default:
		c.bad = true
	}
}

// forPassword is a session key for a password (section 5.3).
func (c *cutter) forPassword() {
	version := c.byte()
	c.check(version >= 4 && version <= 6)
	if version == 6 {
		c.take(1)
	}
	c.check(cipher(c.byte()))
	if version > 4 {
		mode := c.byte()
		c.check(mode >= 1 && mode <= 3)
	}
	if version == 6 {
		c.take(1)
	}
	switch c.byte() { // section 3.7
	case 0:
		c.take(1)
	case 1:
		c.take(9)
	case 3:
		c.take(10)
	case 4:
		c.take(19)
	default:
		c.bad = true
	}
	c.check(len(c.b) <= 80)
	c.secret(len(c.b))
}

func cipher(of byte) bool { return of >= 1 && of <= 13 }

// ciphertext is what is encrypted, with something that shows changes (section 5.13).
func (c *cutter) ciphertext(tag byte) {
	switch version := c.byte(); {
	case tag == tagSEIPD && version == 1:
	case tag == tagSEIPD && version == 2:
		c.check(cipher(c.byte()))
		mode, chunk := c.byte(), c.byte()
		c.check(mode >= 1 && mode <= 3 && chunk <= 16)
		c.secret(32)
	case tag == tagAEAD && version == 1:
		c.check(cipher(c.byte()))
		mode, chunk := c.byte(), c.byte()
		c.check(mode >= 1 && mode <= 3 && chunk <= 56)
	default:
		c.bad = true
	}
	c.check(len(c.b) >= 32 && payloadChance.random(c.b)) // a block or a vector, and the checksum
	c.take(len(c.b))
}

// openPGPSignature is one signature without what it signs.
func openPGPSignature(b []byte) bool {
	all, ok := packets(b)
	return ok && len(all) == 1 && all[0].tag == tagSignature && signature(all[0].body, false, 0)
}

// signature is the body of a signature (section 5.2); onKey, of one on a key, which says
// more.
func signature(b []byte, onKey bool, depth int) bool {
	c := &cutter{b: b}
	version := c.byte()
	size := 2
	var algorithm byte
	switch version {
	case 3:
		c.check(c.byte() == 5)
		c.take(13)
		algorithm = c.byte()
		c.take(1)
	case 6:
		size = 4
		fallthrough
	case 4:
		c.take(1)
		algorithm = c.byte()
		c.take(1)
		for range 2 {
			n := 0
			for _, b := range c.take(size) {
				n = n<<8 | int(b)
			}
			c.check(remarks(c.take(n), onKey, depth))
		}
	default:
		return false
	}
	c.take(2)
	if version == 6 {
		n := int(c.byte())
		c.check(n == 16 || n == 24 || n == 32)
		c.secret(n)
	}
	switch algorithm {
	case 1, 3: // RSA
		c.numbers(1)
	case 17, 19, 22: // DSA, ECDSA, EdDSA
		c.numbers(2)
	case 27: // Ed25519
		c.secret(64)
	case 28: // Ed448
		c.secret(114)
	default:
		c.bad = true
	}
	return c.done()
}

// remarks are a signature's subpackets (section 5.2.3.1). None that holds words is among
// them: notations, policies, reasons.
func remarks(b []byte, onKey bool, depth int) bool {
	for len(b) > 0 {
		n, rest, partial, ok := length(b)
		if !ok || partial || n < 1 || n > len(rest) {
			return false
		}
		kind, body := rest[0]&0x7f, rest[1:n]
		b = rest[n:]
		switch kind {
		case 2, 3: // when, and until when
			ok = len(body) == 4
		case 16: // by which key
			ok = len(body) == 8
		case 33, 35: // by which key, for which key
			ok = (len(body) == 21 || len(body) == 33) && body[0] < 8
		case 28: // who signs
			ok = mailbox(body)
		case 4, 7, 25: // flags of one byte
			ok = onKey && len(body) == 1 && body[0] < 2
		case 5: // trust
			ok = onKey && len(body) == 2
		case 9: // until when the key is good
			ok = onKey && len(body) == 4
		case 11, 21, 22, 34, 39: // preferred algorithms
			ok = onKey && len(body) <= 16
			for _, c := range body {
				ok = ok && c < ' '
			}
		case 23, 27, 30: // flags
			ok = onKey && len(body) <= 4
		case 32: // a signature by the subkey
			ok = onKey && depth == 0 && signature(body, true, 1)
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// mailbox is an address, and no name beside it. XEP-0373 section 4 has xmpp: before it.
var mailbox = matches(`(?:xmpp:)?[!-;=?-~]{1,64}@[A-Za-z0-9.:-]{1,255}`)

// curves are those of RFC 9580 section 9.2, and secp256k1.
var curves = map[string]bool{
	"\x2a\x86\x48\xce\x3d\x03\x01\x07":         true, // P-256
	"\x2b\x81\x04\x00\x22":                     true, // P-384
	"\x2b\x81\x04\x00\x23":                     true, // P-521
	"\x2b\x81\x04\x00\x0a":                     true, // secp256k1
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x07":     true, // brainpoolP256r1
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b":     true, // brainpoolP384r1
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d":     true, // brainpoolP512r1
	"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01":     true, // Ed25519
	"\x2b\x06\x01\x04\x01\x97\x55\x01\x05\x01": true, // Curve25519
}
