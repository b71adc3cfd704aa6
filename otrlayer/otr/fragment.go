package otr

import (
	"bytes"
	"fmt"
	"strconv"
)

// A piece is one fragment of an encoded message (OTR version 3, "Fragmentation").
type piece struct {
	version          Version
	sender, receiver uint32
	k, n             uint16 // piece k of n, from 1
	text             []byte
}

// parsePiece reads what follows "?OTR": "|sender|receiver,k,n,piece," in version
// 3, ",k,n,piece," in version 2.
func parsePiece(t []byte) (p piece, ok bool) {
	p.version = V2
	if t[0] == '|' {
		p.version = V3
		var tag [2]uint32
		for i, end := range []byte{'|', ','} {
			t = t[1:]
			at := bytes.IndexByte(t[:min(len(t), 9)], end)
			if at < 1 {
				return p, false
			}
			n, err := strconv.ParseUint(string(t[:at]), 16, 32)
			if err != nil {
				return p, false
			}
			tag[i], t = uint32(n), t[at:]
		}
		p.sender, p.receiver = tag[0], tag[1]
		if p.sender < LowestTag || p.receiver != 0 && p.receiver < LowestTag {
			return p, false
		}
	}
	for _, to := range []*uint16{&p.k, &p.n} {
		t = t[1:]
		at := bytes.IndexByte(t[:min(len(t), 6)], ',')
		if at < 1 {
			return p, false
		}
		n, err := strconv.ParseUint(string(t[:at]), 10, 16)
		if err != nil {
			return p, false
		}
		*to, t = uint16(n), t[at:]
	}
	end := bytes.IndexByte(t[1:], ',')
	if end < 1 || p.k < 1 || p.n < p.k { // no empty piece, nor one beyond the last
		return p, false
	}
	p.text = t[1 : 1+end]
	return p, true
}

// An assembly puts the pieces of one sender together. They come in order or not
// at all.
type assembly struct {
	k, n uint16
	text []byte
}

// add returns the whole message once its last piece is there.
func (a *assembly) add(p piece, room int) (whole []byte) {
	switch {
	case p.k == 1:
		a.k, a.n, a.text = 1, p.n, nil
	case p.n == a.n && p.k == a.k && bytes.HasSuffix(a.text, p.text):
		return nil // it came twice, as to two clients of ours
	case p.n != a.n || p.k != a.k+1:
		*a = assembly{}
		return nil
	}
	if len(a.text)+len(p.text) > room {
		*a = assembly{}
		return nil
	}
	a.k = p.k
	a.text = append(a.text, p.text...)
	if a.k < a.n {
		return nil
	}
	whole = a.text
	*a = assembly{}
	return whole
}

// Split cuts an encoded message into pieces of at most size bytes, in the order
// in which they are to be sent. A message that fits, and any other than an encoded
// one, is left whole. It fails where size leaves no room for 65535 pieces.
func Split(message []byte, size int) ([][]byte, error) {
	if size <= 0 || len(message) <= size {
		return [][]byte{message}, nil
	}
	m := Parse(message)
	if m.Kind != Encoded {
		return [][]byte{message}, nil
	}
	head := ""
	if m.Version == V3 {
		head = fmt.Sprintf("|%08x|%08x", m.Sender, m.Receiver)
	}
	room := size - len(mark) - len(head) - len(",00000,00000,") - len(",")
	if room < 1 {
		return nil, fmt.Errorf("fragments of %d bytes have no room for a piece of the message", size)
	}
	count := (len(message) + room - 1) / room
	if count > 0xffff {
		return nil, fmt.Errorf("a message of %d bytes would need more than 65535 fragments of %d bytes", len(message), size)
	}
	out := make([][]byte, 0, count)
	for k := 1; k <= count; k++ {
		n := min(room, len(message))
		out = append(out, fmt.Appendf(nil, "%s%s,%05d,%05d,%s,", mark, head, k, count, message[:n]))
		message = message[n:]
	}
	return out, nil
}
