// Package dns is a DNS server in memory, for tests: it answers on UDP and TCP of one
// loopback port as a validating resolver does, records what it was asked, and fails on
// demand.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// TypeTLSA is the type of TLSA records (RFC 6698 section 7.1).
const TypeTLSA dnsmessage.Type = 52

// A Question is one that the server got.
type Question struct {
	Name   string // in lower case, without the dot at its end
	Type   dnsmessage.Type
	TCP    bool
	Header dnsmessage.Header
	DO     bool // DNSSEC OK (RFC 3225)
}

// A Server runs until Close. Without records it says of every name that it does not
// exist; what it says is secure (RFC 4035 section 3.2.3) unless told otherwise.
type Server struct {
	udp *net.UDPConn
	tcp net.Listener
	wg  sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	records  map[string][]dnsmessage.ResourceBody
	insecure map[string]bool // by name, "" for all
	fail     map[string]dnsmessage.RCode
	truncate bool
	tamper   func(query, reply dnsmessage.Message, tcp bool) []dnsmessage.Message
	asked    []Question
}

// New starts a server on a free loopback port.
func New() (*Server, error) { return NewAt("127.0.0.1:0") }

// NewAt starts a server at an address, such as one of a network namespace.
func NewAt(addr string) (*Server, error) {
	s := &Server{conns: map[net.Conn]bool{}, records: map[string][]dnsmessage.ResourceBody{}, insecure: map[string]bool{}, fail: map[string]dnsmessage.RCode{}}
	var err error
	for range 20 { // the port that TCP gets may be taken on UDP
		if s.tcp, err = net.Listen("tcp", addr); err != nil {
			return nil, err
		}
		at := s.tcp.Addr().(*net.TCPAddr)
		if s.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port}); err == nil {
			s.wg.Go(s.serveUDP)
			s.wg.Go(s.serveTCP)
			return s, nil
		}
		s.tcp.Close()
	}
	return nil, err
}

// Close ends the server and what it has open.
func (s *Server) Close() {
	s.udp.Close()
	s.tcp.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return s.tcp.Addr().String() }

// Resolver asks this server, whatever the machine is set to.
func (s *Server) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Addr())
	}}
}

// Add adds a record of any type.
func (s *Server) Add(name string, body dnsmessage.ResourceBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[key(name)] = append(s.records[key(name)], body)
}

// Host adds A and AAAA records.
func (s *Server) Host(name string, addrs ...string) {
	for _, a := range addrs {
		if ip := netip.MustParseAddr(a); ip.Is4() {
			s.Add(name, &dnsmessage.AResource{A: ip.As4()})
		} else {
			s.Add(name, &dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
	}
}

// Alias adds a CNAME record.
func (s *Server) Alias(name, target string) {
	s.Add(name, &dnsmessage.CNAMEResource{CNAME: fqdn(target)})
}

// SRV adds a record of a service such as "xmpp-client" (RFC 2782); the target "." says
// that there is none.
func (s *Server) SRV(service, domain, target string, port, priority, weight uint16) {
	s.Add("_"+service+"._tcp."+domain, &dnsmessage.SRVResource{Target: fqdn(target), Port: port, Priority: priority, Weight: weight})
}

// TLSA adds a record (RFC 6698 section 2.1).
func (s *Server) TLSA(host string, port uint16, usage, selector, matching byte, data []byte) {
	s.Add(fmt.Sprintf("_%d._tcp.%s", port, host), &dnsmessage.UnknownResource{Type: TypeTLSA, Data: append([]byte{usage, selector, matching}, data...)})
}

// Remove removes all records of a name.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, key(name))
}

// Secure says whether answers about names have the AD bit; about all, where none is given.
func (s *Server) Secure(secure bool, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		s.insecure[key(n)] = !secure
	}
}

// Fail has the server answer with a code, such as SERVFAIL, when it is asked about a
// name; RCodeSuccess ends that.
func (s *Server) Fail(name string, code dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[key(name)] = code
}

// Truncate has answers on UDP hold no records and the TC bit.
func (s *Server) Truncate(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.truncate = on
}

// Tamper has f say what is sent for a reply: any number of messages; nil ends that. A
// test forges answers with it.
func (s *Server) Tamper(f func(query, reply dnsmessage.Message, tcp bool) []dnsmessage.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tamper = f
}

// Asked are the questions so far, in their order.
func (s *Server) Asked() []Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Question(nil), s.asked...)
}

// Forget forgets the questions so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = nil
}

func (s *Server) serveUDP() {
	buf := make([]byte, 65535)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		for _, b := range s.reply(buf[:n], false) {
			_, _ = s.udp.WriteToUDPAddrPort(b, from) // who asked may be gone
		}
	}
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			s.talk(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) talk(c net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		for _, b := range s.reply(b, true) {
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
				return
			}
		}
	}
}

// reply is what is sent for a query.
func (s *Server) reply(query []byte, tcp bool) (out [][]byte) {
	var q dnsmessage.Message
	if q.Unpack(query) != nil || len(q.Questions) != 1 || q.Response {
		return nil
	}
	do := false
	for _, r := range q.Additionals {
		if r.Header.Type == dnsmessage.TypeOPT {
			do = r.Header.DNSSECAllowed()
		}
	}
	s.mu.Lock()
	s.asked = append(s.asked, Question{key(q.Questions[0].Name.String()), q.Questions[0].Type, tcp, q.Header, do})
	r := s.answer(q, do, tcp)
	tamper := s.tamper
	s.mu.Unlock()
	all := []dnsmessage.Message{r}
	if tamper != nil {
		all = tamper(q, r, tcp)
	}
	for _, m := range all {
		b, err := m.Pack()
		if err != nil {
			panic(err) // a test that says what DNS cannot
		}
		out = append(out, b)
	}
	return out
}

func (s *Server) answer(q dnsmessage.Message, do, tcp bool) dnsmessage.Message {
	asked := q.Questions[0]
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: q.RecursionDesired, RecursionAvailable: true},
		Questions: q.Questions,
	}
	if len(q.Additionals) > 0 {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(1232, 0, do) == nil {
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
	}
	name := asked.Name
	if m.RCode = s.fail[key(name.String())]; m.RCode != dnsmessage.RCodeSuccess {
		return m
	}
	secure := !s.insecure[""]
	for range 8 { // aliases lead on
		k := key(name.String())
		secure = secure && !s.insecure[k]
		if !s.exists(k) {
			m.RCode = dnsmessage.RCodeNameError
			break
		}
		var next *dnsmessage.CNAMEResource
		found := false
		for _, body := range s.records[k] {
			h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}
			if alias, ok := body.(*dnsmessage.CNAMEResource); ok {
				next = alias
			} else if typeOf(body) != asked.Type {
				continue
			} else {
				found = true
			}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: body})
		}
		if found || next == nil || asked.Type == dnsmessage.TypeCNAME {
			break
		}
		name = next.CNAME
	}
	m.AuthenticData = secure && (do || q.AuthenticData) // RFC 6840 section 5.8
	if s.truncate && !tcp {
		m.Truncated, m.Answers = true, nil
	}
	return m
}

// exists reports whether there is a name or one below it (RFC 8020).
func (s *Server) exists(k string) bool {
	for have := range s.records {
		if have == k || strings.HasSuffix(have, "."+k) {
			return true
		}
	}
	return false
}

func typeOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch b := body.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	case *dnsmessage.TXTResource:
		return dnsmessage.TypeTXT
	case *dnsmessage.UnknownResource:
		return b.Type
	}
	return 0
}

func key(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func fqdn(name string) dnsmessage.Name {
	return dnsmessage.MustNewName(strings.TrimSuffix(name, ".") + ".")
}
