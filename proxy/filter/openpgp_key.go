package filter

import (
	"encoding/base64"
	"strings"
)

// openPGPKey is a check for a public key and what belongs to it, of an owner who is called so.
func openPGPKey(owner Check) func(b []byte) bool {
	return func(b []byte) bool { return publicKeys(b, owner) }
}

func publicKeys(b []byte, owner Check) bool {
	all, ok := packets(b)
	if !ok || all[0].tag != tagKey {
		return false
	}
	for i, p := range all {
		switch p.tag {
		case tagKey, tagSubkey:
			if ok = (p.tag == tagKey) == (i == 0); ok {
				c := &cutter{b: p.body}
				c.publicKey()
				ok = c.done()
			}
		case tagUserID:
			ok = owner(p.body)
		case tagSignature:
			ok = signature(p.body, true, 0)
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// publicKey is a key (section 5.5.2).
func (c *cutter) publicKey() {
	version := c.byte()
	c.check(version == 4 || version == 6)
	c.take(4)
	algorithm := c.byte()
	if version == 6 {
		c.take(4)
	}
	switch algorithm {
	case 1, 2, 3: // RSA
		c.numbers(2)
	case 16: // Elgamal
		c.numbers(3)
	case 17: // DSA
		c.numbers(4)
	case 18, 19, 22: // ECDH, ECDSA, EdDSA: a curve by its object identifier
		c.check(curves[string(c.take(int(c.byte())))])
		c.numbers(1)
		if algorithm == 18 {
			kdf := c.take(4)
			c.check(len(kdf) == 4 && kdf[0] == 3 && kdf[1] == 1 && kdf[2] < 16 && cipher(kdf[3]))
		}
	case 25, 27: // X25519, Ed25519
		c.secret(32)
	case 26: // X448
		c.secret(56)
	case 28: // Ed448
		c.secret(57)
	default:
		c.bad = true
	}
}

// unarmored decodes base64 that may end in OpenPGP's checksum on a line of its own (RFC 4880
// section 6), which must be right.
func unarmored(s string) ([]byte, bool) {
	s = strings.TrimSpace(s)
	i := strings.LastIndexByte(s, '\n')
	if i < 0 || s[i+1] != '=' {
		return decoded(s)
	}
	b, ok := decoded(s[:i])
	sum, err := base64.StdEncoding.Strict().DecodeString(s[i+2:])
	if !ok || err != nil || len(sum) != 3 {
		return nil, false
	}
	crc := uint32(0xb704ce)
	for _, c := range b {
		crc ^= uint32(c) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return b, crc&0xffffff == uint32(sum[0])<<16|uint32(sum[1])<<8|uint32(sum[2])
}
