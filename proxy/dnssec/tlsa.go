package dnssec

import (
	"bytes"
	"fmt"
)

// A TLSA says what a certificate must be (RFC 6698 section 2.1).
type TLSA struct {
	Usage, Selector, Matching byte
	Data                      []byte
}

func (r TLSA) String() string {
	return fmt.Sprintf("%d %d %d", r.Usage, r.Selector, r.Matching)
}

// ParseTLSA reads a record's data.
func ParseTLSA(b []byte) (TLSA, error) {
	if len(b) < 4 {
		return TLSA{}, fmt.Errorf("a TLSA record of %d bytes says nothing", len(b))
	}
	return TLSA{b[0], b[1], b[2], bytes.Clone(b[3:])}, nil
}
