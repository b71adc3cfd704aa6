package dnssec

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/dns/dnsmessage"
)

// A dnsAnswer is what a resolver says to a question.
type dnsAnswer struct {
	code    dnsmessage.RCode
	cut     bool // it did not fit
	secure  bool
	records []dnsRecord // of the type asked for, at the name or where its aliases lead
}

type dnsRecord struct {
	owner string
	kind  dnsmessage.Type
	alias string   // of CNAME
	srv   *net.SRV // of SRV
	data  []byte   // of others
}

// parseAnswer reads an answer to q. One that is to something else is errStray (RFC 5452
// section 9.1).
func parseAnswer(msg []byte, id uint16, q dnsmessage.Question) (*dnsAnswer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.ID != id || !h.Response || h.OpCode != 0 {
		return nil, errStray
	}
	echo, err := p.Question()
	if err != nil || echo.Type != q.Type || echo.Class != q.Class || folded(echo.Name) != folded(q.Name) {
		return nil, errStray
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return nil, errStray
	}
	a := &dnsAnswer{code: h.RCode, cut: h.Truncated, secure: h.AuthenticData}
	if a.cut {
		return &dnsAnswer{code: h.RCode, cut: true}, nil // what is in it is not all
	}
	var records []dnsRecord
	for {
		r, err := parseRecord(&p, q.Type)
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("gives a damaged answer: %w", err)
		}
		if r != nil {
			records = append(records, *r)
		}
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return nil, fmt.Errorf("gives a damaged answer: %w", err)
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err == nil {
			err = p.SkipAdditional()
		}
		if err != nil {
			return nil, fmt.Errorf("gives a damaged answer: %w", err)
		}
		if h.Type == dnsmessage.TypeOPT { // it holds the upper bits of the code (RFC 6891 section 6.1.3)
			a.code = h.ExtendedRCode(a.code & 0xf)
		}
	}
	if a.code == dnsmessage.RCodeSuccess {
		a.records = follow(records, folded(q.Name), q.Type)
	}
	return a, nil
}

// parseRecord reads the next record of the answer; nil for one of no interest, such as
// a signature.
func parseRecord(p *dnsmessage.Parser, want dnsmessage.Type) (*dnsRecord, error) {
	h, err := p.AnswerHeader()
	if err != nil {
		return nil, err
	}
	if h.Class != dnsmessage.ClassINET || h.Type != want && h.Type != dnsmessage.TypeCNAME {
		return nil, p.SkipAnswer()
	}
	r := &dnsRecord{owner: folded(h.Name), kind: h.Type}
	switch h.Type {
	case dnsmessage.TypeCNAME:
		c, err := p.CNAMEResource()
		if err != nil {
			return nil, err
		}
		r.alias = folded(c.CNAME)
	case dnsmessage.TypeSRV:
		s, err := p.SRVResource()
		if err != nil {
			return nil, err
		}
		r.srv = &net.SRV{Target: folded(s.Target), Port: s.Port, Priority: s.Priority, Weight: s.Weight}
	default:
		u, err := p.UnknownResource()
		if err != nil {
			return nil, err
		}
		r.data = u.Data
	}
	return r, nil
}

// follow are the records of a name, or of the one its aliases lead to. The AD bit is
// about all of the answer, so the way there is as secure as its end.
func follow(records []dnsRecord, name string, kind dnsmessage.Type) (out []dnsRecord) {
	for range maxAliases {
		alias := ""
		for _, r := range records {
			switch {
			case r.owner != name:
			case r.kind == kind:
				out = append(out, r)
			case r.kind == dnsmessage.TypeCNAME && alias == "":
				alias = r.alias
			}
		}
		if len(out) > 0 || alias == "" {
			return out
		}
		name = alias
	}
	return nil
}

// folded is a name with its ASCII letters in lower case, and nothing else changed (RFC
// 4343): any byte may stand in one.
func folded(n dnsmessage.Name) string {
	b := bytes.Clone(n.Data[:n.Length])
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
