package dnssec

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"otrproxy/proxy/hostname"
)

// A Resolver is the DNS resolver of this machine, where its word on DNSSEC can be taken.
// It validates for us: what we read is the AD bit (RFC 4035 section 3.2.3, RFC 6840
// section 5.7).
type Resolver struct {
	servers  []string      // host:port, in the order in which they are asked
	trusted  bool          // their AD bit can be taken
	timeout  time.Duration // for one question to one server
	attempts int           // rounds through the servers
	err      error         // why nothing is known of them
}

// ResolvConf is where the machine says whom to ask. Tests have their own.
var ResolvConf = "/etc/resolv.conf"

const (
	maxDatagram = 1232 // what a datagram carries everywhere without fragments
	maxStray    = 20   // datagrams that answer nothing, before a question is given up
	maxAliases  = 16
	maxTLSA     = 100 // records of one name; each costs a chain that is checked

	typeTLSA dnsmessage.Type = 52
)

// System reads what the machine is set to (resolv.conf(5)).
func System() *Resolver {
	b, err := os.ReadFile(ResolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Resolver{err: fmt.Errorf("the DNS resolver of this machine is not known: %w", err)}
	}
	return parseResolvConf(string(b))
}

// New asks the servers given, as host:port.
func New(trusted bool, servers ...string) *Resolver {
	return &Resolver{servers: servers, trusted: trusted, timeout: 5 * time.Second, attempts: 2}
}

// forwarders are on this machine and validate nothing: they hand on what others say, with
// their AD bit. Docker's, and the second one of systemd-resolved(8).
var forwarders = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 11}), netip.AddrFrom4([4]byte{127, 0, 0, 54})}

// parseResolvConf reads a resolv.conf as glibc does. A resolver on this machine is
// trusted; where there is one, those elsewhere are not asked, unless the file says that
// the way to all of them is safe.
func parseResolvConf(text string) *Resolver {
	v := New(false)
	var here []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if i := indexComment(f); i >= 0 {
			f = f[:i]
		}
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(f[1])
			if err != nil || len(v.servers) == 3 { // MAXNS
				continue
			}
			server := net.JoinHostPort(addr.String(), "53")
			v.servers = append(v.servers, server)
			if addr = addr.Unmap(); addr.IsLoopback() && !slices.Contains(forwarders, addr) {
				here = append(here, server)
			}
		case "options":
			for _, o := range f[1:] {
				name, value, _ := strings.Cut(o, ":")
				n, err := strconv.Atoi(value)
				switch {
				case o == "trust-ad":
					v.trusted = true
				case name == "timeout" && err == nil:
					v.timeout = time.Duration(min(max(n, 1), 30)) * time.Second
				case name == "attempts" && err == nil:
					v.attempts = min(max(n, 1), 5)
				}
			}
		}
	}
	if len(v.servers) == 0 {
		here = []string{"127.0.0.1:53"}
		v.servers = here
	}
	if !v.trusted && len(here) > 0 {
		v.servers, v.trusted = here, true
	}
	return v
}

func indexComment(fields []string) int {
	for i, f := range fields {
		if f[0] == '#' || f[0] == ';' {
			return i
		}
	}
	return -1
}

// Usable is why the resolver's AD bit cannot be trusted; nil when it can.
func (v *Resolver) Usable() error {
	switch {
	case v.err != nil:
		return v.err
	case !v.trusted:
		return fmt.Errorf("the DNS resolver at %s is on another machine or only hands on what one says, and anybody on the way could say that DNSSEC holds; "+
			"run a validating resolver on this machine, or put \"options trust-ad\" into %s where the way is safe", strings.Join(v.servers, ", "), ResolvConf)
	}
	return nil
}

// SecureSRV looks an SRV service up (RFC 2782, RFC 7673 section 3.1). Secure is the AD
// bit of the answer, also where it is that there is no such record: records are nil then.
func (v *Resolver) SecureSRV(ctx context.Context, service, domain string) (records []*net.SRV, secure bool, err error) {
	name := "_" + service + "._tcp." + absolute(domain)
	a, err := v.query(ctx, name, dnsmessage.TypeSRV)
	if err != nil {
		return nil, false, err
	}
	for _, r := range a.records {
		// The target goes into questions and logs, so it is a host's name or nothing.
		if r.srv.Target == "." || hostname.Pattern.MatchString(strings.TrimSuffix(r.srv.Target, ".")) {
			records = append(records, r.srv)
		}
	}
	if len(a.records) > 0 && len(records) == 0 {
		return nil, false, fmt.Errorf("%s: its SRV records name no host", name)
	}
	return records, a.secure, nil
}

// LookupTLSA looks up what is said of the certificate at a place (RFC 6698 section 3). It is
// nil when DNS says securely that nothing is; an insecure answer is an error.
func (v *Resolver) LookupTLSA(ctx context.Context, host string, port uint16) (records []TLSA, err error) {
	if err := v.Usable(); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("_%d._tcp.%s", port, absolute(host))
	a, err := v.query(ctx, name, typeTLSA)
	switch {
	case err != nil:
		return nil, err
	case !a.secure:
		return nil, fmt.Errorf("%s: the answer is not secure: either the domain is not signed with DNSSEC, or the resolver at %s does not validate", name, strings.Join(v.servers, ", "))
	case len(a.records) > maxTLSA:
		return nil, fmt.Errorf("%s: %d TLSA records are too many, the limit is %d", name, len(a.records), maxTLSA)
	}
	for _, r := range a.records {
		var t TLSA
		if t, err = ParseTLSA(r.data); err == nil {
			records = append(records, t)
		}
	}
	if len(records) == 0 && err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return records, nil
}

// SecureHost reports whether an address of a host is secure; only then are TLSA records
// looked for there (RFC 7673 section 3.2).
func (v *Resolver) SecureHost(ctx context.Context, host string) (bool, error) {
	var found [2]bool
	var errs [2]error
	var wg sync.WaitGroup
	for i, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		wg.Go(func() {
			a, err := v.query(ctx, absolute(host), kind)
			errs[i] = err
			found[i] = err == nil && a.secure && len(a.records) > 0
		})
	}
	wg.Wait()
	if found[0] || found[1] {
		return true, nil
	}
	if errs[0] != nil {
		return false, errs[0]
	}
	return false, errs[1]
}

// absolute is a name as DNS writes it, with the root at its end.
func absolute(name string) string { return hostname.ASCII(strings.TrimSuffix(name, ".")) + "." }

// query asks one server after another, until one knows.
func (v *Resolver) query(ctx context.Context, name string, kind dnsmessage.Type) (*dnsAnswer, error) {
	if v.err != nil {
		return nil, v.err
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no name in DNS: %w", name, err)
	}
	q := dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}
	if _, err := packQuery(0, q); err != nil {
		return nil, fmt.Errorf("%q is no name in DNS: %w", name, err)
	}
	err = errors.New("there is no DNS resolver to ask")
	for range v.attempts {
		for _, server := range v.servers {
			a, failed := v.ask(ctx, server, q)
			if failed == nil {
				a.secure = a.secure && v.trusted
				return a, nil
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("%s was not looked up: %w", name, context.Cause(ctx))
			}
			err = fmt.Errorf("%s cannot be looked up: the resolver at %s %w", name, server, failed)
		}
	}
	return nil, err
}

// ask asks a server, over TCP where a datagram is too small.
func (v *Resolver) ask(ctx context.Context, server string, q dnsmessage.Question) (*dnsAnswer, error) {
	for _, network := range []string{"udp", "tcp"} {
		a, err := v.exchange(ctx, network, server, q)
		switch {
		case err != nil:
			return nil, err
		case a.cut:
			continue
		case a.code == dnsmessage.RCodeServerFailure:
			return nil, errors.New("says SERVFAIL: what it got is forged or wrongly signed, or nobody answers it")
		case a.code != dnsmessage.RCodeSuccess && a.code != dnsmessage.RCodeNameError:
			return nil, fmt.Errorf("refuses with code %d", a.code)
		}
		return a, nil
	}
	return nil, errors.New("cuts its answer over TCP, too")
}

func (v *Resolver) exchange(ctx context.Context, network, server string, q dnsmessage.Question) (*dnsAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	var random [2]byte
	_, _ = rand.Read(random[:]) // crypto/rand does not fail
	id := binary.BigEndian.Uint16(random[:])
	query, err := packQuery(id, q)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server) // a connected socket: others' datagrams do not come in
	if err != nil {
		return nil, fmt.Errorf("cannot be reached: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	if network == "tcp" {
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
			return nil, fmt.Errorf("cannot be asked: %w", err)
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return nil, fmt.Errorf("does not answer: %w", err)
		}
		msg := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return nil, fmt.Errorf("does not answer: %w", err)
		}
		return parseAnswer(msg, id, q)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, fmt.Errorf("cannot be asked: %w", err)
	}
	msg := make([]byte, maxDatagram)
	for range maxStray {
		n, err := conn.Read(msg)
		if err != nil {
			return nil, fmt.Errorf("does not answer: %w", err)
		}
		a, err := parseAnswer(msg[:n], id, q)
		if !errors.Is(err, errStray) {
			return a, err
		}
	}
	return nil, errStray // somebody may be guessing the id; the next question has another, and another port
}

// packQuery asks for validation (the CD bit is clear) and for its outcome: the AD bit
// (RFC 6840 section 5.7), and DO for resolvers that look at nothing else (RFC 3225).
func packQuery(id uint16, q dnsmessage.Question) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true, AuthenticData: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(maxDatagram, dnsmessage.RCodeSuccess, true); err != nil {
		return nil, err
	}
	if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
		return nil, err
	}
	return b.Finish()
}

var errStray = errors.New("answers something that was not asked")
