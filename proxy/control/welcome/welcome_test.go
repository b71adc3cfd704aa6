package welcome

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"
)

// A stand is a served page of a box with a CA of its own.
type stand struct {
	t    *testing.T
	ca   *x509.Certificate
	addr string
	page *Page
}

func newStand(t *testing.T, on string, listening ...net.Addr) *stand {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := func(c *x509.Certificate) *x509.Certificate {
		t.Helper()
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: pkix.Name{CommonName: `otrproxy <local> & "CA"`}}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca := made(&x509.Certificate{Subject: pkix.Name{CommonName: `otrproxy <local> & "CA"`}, IsCA: true, BasicConstraintsValid: true, PermittedDNSDomains: []string{"example.org", "lan"}})
	leaf := made(&x509.Certificate{DNSNames: []string{"otrproxy.lan"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}})
	s := &stand{t: t, ca: ca}
	s.page = New(Box{CA: ca, Names: func() []string { return []string{"otrproxy.lan", "192.168.1.2"} }, Listening: func() []net.Addr { return listening },
		Certificate: func(at net.Addr) (*tls.Certificate, error) {
			if at.(*net.TCPAddr).Port == 0 {
				t.Error("nobody says where they have come to")
			}
			return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}, nil
		}})
	l, err := net.Listen("tcp", on)
	if err != nil {
		t.Fatal(err)
	}
	srv := s.page.Server()
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(s.page.Listen(l)) }()
	t.Cleanup(func() { srv.Close(); <-done })
	s.addr = l.Addr().String()
	return s
}

// raw sends a request as it stands, and returns what comes back until the connection ends.
func (s *stand) raw(request string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		s.t.Logf("%q: %v", request, err)
	}
	return string(b)
}

// ask asks for a path under a host's name.
func (s *stand) ask(method, path, host string) *http.Response {
	s.t.Helper()
	text := s.raw(method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s %s: %v in %q", method, path, err, text)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return r
}

func body(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

var anywhere = &net.TCPAddr{IP: net.IPv6unspecified, Port: 5222}

// What there is to read: the CA in three forms, its fingerprint, and where to connect.
func TestPage(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	r := s.ask("GET", "/", s.addr)
	page := body(r)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatal(r.Status, r.Header)
	}
	var groups []string
	for _, m := range regexp.MustCompile(`<span>([0-9A-F:]+)</span>`).FindAllStringSubmatch(page, -1) {
		groups = append(groups, m[1])
	}
	sum := sha256.Sum256(s.ca.Raw)
	if want := strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":"); strings.Join(groups, ":") != want || len(groups) != 8 {
		t.Errorf("fingerprint %v, want %s", groups, want)
	}
	for _, part := range []string{"127.0.0.1", "5222", "otrproxy ca show", "Compare before you install", "example.org", "otrproxy &lt;local&gt; &amp; ", "https://" + s.addr + "/",
		"Pidgin", "Gajim", "Dino", "Conversations", "Monal", "Psi+", "Trillian", "Adium", "Profanity", "mcabber"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not say %q", part)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "<form") || strings.Contains(page, " style=") || strings.Contains(page, "<local>") {
		t.Error("there is more than text on the page")
	}

	crt := s.ask("GET", "/otrproxy.crt", s.addr)
	if crt.Header.Get("Content-Type") != "application/x-x509-ca-cert" || body(crt) != string(s.ca.Raw) {
		t.Error("otrproxy.crt is not the CA in DER")
	}
	text := s.ask("GET", "/otrproxy.pem", s.addr)
	if block, rest := pem.Decode([]byte(body(text))); block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 || !bytes.Equal(block.Bytes, s.ca.Raw) {
		t.Error("otrproxy.pem is not the CA alone")
	}
	profile := s.ask("GET", "/otrproxy.mobileconfig", s.addr)
	config := body(profile)
	if m := regexp.MustCompile(`<data>([^<]*)</data>`).FindStringSubmatch(config); m == nil || profile.Header.Get("Content-Type") != "application/x-apple-aspen-config" {
		t.Error("no profile")
	} else if der, err := base64.StdEncoding.DecodeString(m[1]); err != nil || !bytes.Equal(der, s.ca.Raw) {
		t.Error("the profile installs something else")
	}
	if ids := regexp.MustCompile(`[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}<`).FindAllString(config, -1); len(ids) != 4 || ids[0] == ids[2] || strings.Contains(config, "<local>") {
		t.Errorf("identifiers %v in\n%s", ids, config)
	}
}

// The code has the address of the page and the fingerprint.
func TestCode(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	sum := sha256.Sum256(s.ca.Raw)
	want, err := qr.Encode(fmt.Sprintf("http://%s/#sha256=%X", s.addr, sum), qr.L)
	if err != nil {
		t.Fatal(err)
	}
	dark := map[[2]int]bool{}
	m := regexp.MustCompile(`<path d="([^"]*)"`).FindStringSubmatch(body(s.ask("GET", "/", s.addr)))
	if m == nil {
		t.Fatal("no code")
	}
	for _, step := range strings.Split(strings.TrimPrefix(m[1], "M"), "M") {
		var x, y int
		if _, err := fmt.Sscanf(step, "%d %dh1v1h-1z", &x, &y); err != nil {
			t.Fatalf("%q: %v", step, err)
		}
		dark[[2]int{x - 4, y - 4}] = true
	}
	n := 0
	for y := range want.Size {
		for x := range want.Size {
			if want.Black(x, y) {
				n++
			}
			if want.Black(x, y) != dark[[2]int{x, y}] {
				t.Fatalf("module %d,%d", x, y)
			}
		}
	}
	if n != len(dark) {
		t.Errorf("%d modules, want %d", len(dark), n)
	}
}

// Every answer, whatever it is to, says how little may be done with it; nothing is set, and
// nothing can be had but what is listed.
func TestNothingElse(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	public := []string{"/", "/style.css", "/icon.svg", "/otrproxy.crt", "/otrproxy.pem", "/otrproxy.mobileconfig"}
	paths := append(slices.Clone(public), "/ca.key", "/ca.pem", "/../ca.key", "/..%2fca.key", "/%2e%2e/%2e%2e/ca.key", "/otrproxy.crt/../ca.key", "//ca.key", "/static/", "/templates/welcome.html", "/static/style.css",
		"/accounts", "/accounts/alice@example.org/otr.private_key", "/pins.yaml", "/control.sock", "/otrproxy.key", "/metrics", "/health", "/debug/pprof/", "/.git/config", "/enter?token=x", "/?file=/etc/passwd", "/otrproxy.crt?x=../ca.key",
		"/otrproxy.crt%00.key", "/\\..\\ca.key", "http://127.0.0.1/ca.key", "/"+strings.Repeat("a", 4000))
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND"} {
		for _, path := range paths {
			r := s.ask(method, path, s.addr)
			text := body(r)
			bare, _, _ := strings.Cut(path, "?")
			switch ok := r.StatusCode == 200; {
			case ok && !slices.Contains(public, bare):
				t.Errorf("%s %s: %s", method, path, text)
			case ok && method != "GET" && method != "HEAD":
				t.Errorf("%s %s is answered", method, path)
			case !ok && slices.Contains(public, bare) && (method == "GET" || method == "HEAD"):
				t.Errorf("%s %s: %s", method, path, r.Status)
			case method == "HEAD" && text != "":
				t.Errorf("HEAD %s has a body", path)
			case r.StatusCode >= 300 && r.StatusCode < 400 && !strings.HasPrefix(r.Header.Get("Location"), "/"):
				t.Errorf("%s %s leads to %s", method, path, r.Header.Get("Location"))
			}
			if strings.Contains(text, "PRIVATE") || strings.Contains(text, "root:") || len(r.Cookies()) > 0 {
				t.Errorf("%s %s: %q %v", method, path, text, r.Header)
			}
			if r.StatusCode != 400 && (!strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'self'; img-src 'self';") || r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Access-Control-Allow-Origin") != "") {
				t.Errorf("%s %s: %v", method, path, r.Header)
			}
		}
	}
}

// A name of somebody else's that leads here is not told to people as ours.
func TestHost(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	_, port, _ := net.SplitHostPort(s.addr)
	for host, want := range map[string]int{s.addr: 200, "127.0.0.1": 200, "localhost:" + port: 200, "OTRproxy.lan:" + port: 200, "otrproxy.lan.": 200, "192.168.1.2:80": 200,
		"evil.example": 421, "evil.example:" + port: 421, "127.0.0.1.evil.example": 421, "192.168.1.3": 421, "otrproxy.lan.evil.example": 421, "<script>": 400, "": 421, "[::1]": 421, "127.0.0.2": 421} {
		r := s.ask("GET", "/", host)
		if r.StatusCode != want {
			t.Errorf("as %q: %s, want %d", host, r.Status, want)
		}
		if page := body(r); r.StatusCode != 200 && strings.Contains(page, "evil") {
			t.Errorf("as %q: %s", host, page)
		}
	}
	if page := body(s.ask("GET", "/", "otrproxy.lan:"+port)); !strings.Contains(page, "<dd>otrproxy.lan</dd>") || !strings.Contains(page, "http") || !strings.Contains(page, "https://otrproxy.lan:"+port+"/") {
		t.Error("by its name, the page tells another")
	}
}

// Where programs connect depends on what is listened on.
func TestPlace(t *testing.T) {
	at := func(s string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: port} }
	for _, c := range []struct {
		listening []net.Addr
		want      string
	}{
		{[]net.Addr{at("127.0.0.1", 5222)}, "<dt>Host</dt><dd>127.0.0.1</dd><dt>Port</dt><dd>5222</dd>"},
		{[]net.Addr{at("192.168.1.2", 5223), at("127.0.0.1", 5222)}, "<dd>127.0.0.1</dd><dt>Port</dt><dd>5222</dd>"},
		{[]net.Addr{at("0.0.0.0", 5224)}, "<dd>127.0.0.1</dd><dt>Port</dt><dd>5224</dd>"},
		{[]net.Addr{at("::", 5225)}, "<dd>127.0.0.1</dd><dt>Port</dt><dd>5225</dd>"},
		{[]net.Addr{at("127.0.0.9", 1), at("192.168.1.2", 5226)}, "<dd>192.168.1.2</dd><dt>Port</dt><dd>5226</dd>"},
		{[]net.Addr{at("fd00::2", 5227)}, "<dd>fd00::2</dd><dt>Port</dt><dd>5227</dd>"},
		{[]net.Addr{at("127.0.0.9", 5222)}, "Other devices cannot connect yet"},
	} {
		s := newStand(t, "127.0.0.1:0", c.listening...)
		if page := body(s.ask("GET", "/", s.addr)); !strings.Contains(page, c.want) {
			t.Errorf("listening on %v, the page does not say %s", c.listening, c.want)
		}
	}
}

// The page over IPv6 has addresses that a browser understands.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine")
	}
	l.Close()
	s := newStand(t, "[::1]:0", anywhere)
	page := body(s.ask("GET", "/", s.addr))
	if !strings.Contains(page, "<dd>::1</dd>") || !strings.Contains(page, `href="https://`+s.addr+`/"`) {
		t.Error(page)
	}
}

// The same port speaks HTTPS, by which who has installed the CA sees that it works.
func TestHTTPS(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	roots := x509.NewCertPool()
	roots.AddCert(s.ca)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer trusting.CloseIdleConnections()
	r, err := trusting.Get("https://" + s.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	if page := body(r); r.StatusCode != 200 || !strings.Contains(page, "You have come by HTTPS") {
		t.Error(r.Status, page)
	}
	r.Body.Close()
	if _, err := http.Get("https://" + s.addr + "/"); err == nil {
		t.Error("who does not trust the CA is served")
	}
	if strings.Contains(body(s.ask("GET", "/", s.addr)), "You have come by HTTPS") {
		t.Error("who has come in clear is told otherwise")
	}
}

// What is neither HTTP nor TLS ends, and holds nobody else up.
func TestNoise(t *testing.T) {
	s := newStand(t, "127.0.0.1:0", anywhere)
	idle, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for first := range 256 {
		for _, more := range []string{"", "\x03\x01\x00\x05hello", "ET / HTTP/1.1\r\n\r\n"} {
			if text := s.raw(string([]byte{byte(first)}) + more); strings.Contains(text, " 200 ") {
				t.Errorf("%#x %q is answered by %q", first, more, text)
			}
		}
	}
	if r := s.ask("GET", "/", s.addr); r.StatusCode != 200 {
		t.Error(r.Status)
	}
	long := s.raw("GET / HTTP/1.1\r\nHost: " + s.addr + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	if !strings.Contains(long, " 431 ") && long != "" {
		t.Errorf("a long header: %.100q", long)
	}
}
