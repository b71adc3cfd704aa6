// Package welcome is the page by which the household's devices come to trust this machine:
// the local CA to install, its fingerprint, and what to set in each program.
//
//	welcome.go  the page and its files
//	first.go    plain HTTP and HTTPS on one port, told by the first byte
//
// It must be readable before anything is trusted, so that whoever is in the network can
// read it, and change it on the way: it holds nothing but the CA's certificate, which is no
// secret, and says that the fingerprint has to be compared elsewhere. It knows nobody:
// there is no login, no cookie, no form and no script, and it changes nothing.
package welcome

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"rsc.io/qr"

	"otrproxy/proxy/control"
)

//go:embed templates static
var files embed.FS

// A Box is the machine that the page is about.
type Box struct {
	CA          *x509.Certificate
	Names       func() []string                             // by which devices reach it, besides the address they have come to
	Listening   func() []net.Addr                           // for chat programs
	Certificate func(at net.Addr) (*tls.Certificate, error) // for who comes by HTTPS
}

// A Page serves the page and its files.
type Page struct {
	box Box
	sum [sha256.Size]byte
	mux *http.ServeMux
}

// New makes the page of a box.
func New(box Box) *Page {
	p := &Page{box: box, sum: sha256.Sum256(box.CA.Raw), mux: http.NewServeMux()}
	static := func(name, kind string) {
		b, err := files.ReadFile("static/" + name)
		if err != nil {
			panic(err) // it is part of the program
		}
		p.file(name, kind, "", b)
	}
	static("style.css", "text/css; charset=utf-8")
	static("icon.svg", "image/svg+xml")
	// Browsers of phones offer to install what has these types; another disposition would
	// have them keep it as a file only.
	p.file("otrproxy.crt", "application/x-x509-ca-cert", "inline", box.CA.Raw)
	p.file("otrproxy.mobileconfig", "application/x-apple-aspen-config", "inline", p.profile())
	p.file("otrproxy.pem", "application/x-pem-file", "attachment", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: box.CA.Raw}))
	p.mux.HandleFunc("GET /{$}", p.page)
	return p
}

// file serves one file of fixed content; there is no way to any other.
func (p *Page) file(name, kind, disposition string, b []byte) {
	p.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		if disposition != "" {
			w.Header().Set("Content-Disposition", disposition+"; filename="+name)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if r.Method != http.MethodHead {
			w.Write(b)
		}
	})
}

// ServeHTTP checks what every request must be, and sets what every answer says.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "This page can only be read.", http.StatusMethodNotAllowed)
		return
	}
	if _, ok := p.host(r); !ok {
		http.Error(w, "This machine is not known by that name here. Use its address, or list the name under \"names\" in the configuration of otrproxy.", http.StatusMisdirectedRequest)
		return
	}
	p.mux.ServeHTTP(w, r)
}

// host is the name or address by which a request has come, and whether it is one of this
// machine's: the page tells people to connect there, and a name of somebody else's may lead
// here today only.
func (p *Page) host(r *http.Request) (string, bool) {
	name, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		name = strings.Trim(r.Host, "[]")
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ip, err := netip.ParseAddr(name); err == nil {
		name = ip.Unmap().WithZone("").String()
	}
	return name, name == "localhost" || name == local(r).String() || slices.Contains(p.box.Names(), name)
}

// local is the address of ours that a request has come to.
func local(r *http.Request) netip.Addr {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return address(a).Addr()
}

func address(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// place is where chat programs connect, for who has reached us by a host at an address.
func (p *Page) place(host string, at netip.Addr) (string, uint16) {
	for _, l := range p.box.Listening() {
		l := address(l)
		all := l.Addr().IsUnspecified() && (l.Addr().Is6() || at.Is4())
		if l.Addr() == at || all {
			return host, l.Port()
		}
	}
	for _, l := range p.box.Listening() {
		if l := address(l); !l.Addr().IsLoopback() && !l.Addr().IsUnspecified() {
			return l.Addr().String(), l.Port()
		}
	}
	return "", 0
}

// A view is what the page shows.
type view struct {
	Host   string   // where chat programs connect; "" where no device can
	Port   uint16   //
	Page   string   // this page's address
	Secure string   // the same by HTTPS
	TLS    bool     // they have come by that
	Print  []string // the fingerprint, in groups
	QR     code
	CA     string   // its name
	Until  string   // its end
	Only   []string // what it may vouch for; nil for anything
}

func (p *Page) page(w http.ResponseWriter, r *http.Request) {
	host, _ := p.host(r)
	at := host
	if here, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		at = net.JoinHostPort(host, strconv.Itoa(int(address(here).Port())))
	}
	v := view{Page: "http://" + at + "/", Secure: "https://" + at + "/", TLS: overTLS(r), CA: p.box.CA.Subject.CommonName,
		Until: p.box.CA.NotAfter.UTC().Format("2 January 2006"), Only: control.VouchesFor(p.box.CA), Print: grouped(p.sum[:])}
	v.Host, v.Port = p.place(host, local(r))
	var err error
	if v.QR, err = draw(control.DeviceLink(v.Page, p.box.CA.Raw)); err != nil {
		http.Error(w, "The code could not be drawn.", http.StatusInternalServerError)
		return
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "welcome.html", v); err != nil {
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if r.Method != http.MethodHead {
		b.WriteTo(w)
	}
}

var templates = template.Must(template.ParseFS(files, "templates/*.html"))

// grouped is a fingerprint as programs write it (AB:CD:...), in groups of four bytes.
func grouped(sum []byte) (out []string) {
	for four := range slices.Chunk(sum, 4) {
		out = append(out, strings.ReplaceAll(fmt.Sprintf("% X", four), " ", ":"))
	}
	return out
}

// A code is a QR code as the path of an SVG.
type code struct {
	Side int
	Path string
}

func draw(text string) (code, error) {
	c, err := qr.Encode(text, qr.L)
	if err != nil {
		return code{}, err
	}
	const quiet = 4 // modules around it (ISO 18004)
	var b strings.Builder
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	return code{c.Size + 2*quiet, b.String()}, nil
}

// profile is the CA as Apple's systems install it.
func (p *Page) profile() []byte {
	id := func(of byte) string { // the same for the same CA, so that it is not installed twice
		s := sha256.Sum256(append([]byte{of}, p.sum[:]...))
		return fmt.Sprintf("%X-%X-%X-%X-%X", s[:4], s[4:6], s[6:8], s[8:10], s[10:16])
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, profileText, base64.StdEncoding.EncodeToString(p.box.CA.Raw), template.HTMLEscapeString(p.box.CA.Subject.CommonName), id(1), id(2))
	return b.Bytes()
}

const profileText = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadCertificateFileName</key><string>otrproxy.crt</string>
			<key>PayloadContent</key><data>%[1]s</data>
			<key>PayloadDisplayName</key><string>%[2]s</string>
			<key>PayloadIdentifier</key><string>otrproxy.ca.%[3]s</string>
			<key>PayloadType</key><string>com.apple.security.root</string>
			<key>PayloadUUID</key><string>%[3]s</string>
			<key>PayloadVersion</key><integer>1</integer>
		</dict>
	</array>
	<key>PayloadDescription</key><string>Lets this device trust otrproxy in your own network. Compare the fingerprint before you install it.</string>
	<key>PayloadDisplayName</key><string>%[2]s</string>
	<key>PayloadIdentifier</key><string>otrproxy.%[4]s</string>
	<key>PayloadType</key><string>Configuration</string>
	<key>PayloadUUID</key><string>%[4]s</string>
	<key>PayloadVersion</key><integer>1</integer>
</dict>
</plist>
`

// Server serves the page. Anybody in the network can make connections: they are bounded,
// and none lasts.
func (p *Page) Server() *http.Server {
	return &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 20 * time.Second, MaxHeaderBytes: 8 << 10, ConnContext: remember}
}
