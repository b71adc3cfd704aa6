package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"otrproxy/proxy/control"
)

// evil is what somebody else may have put into anything that is shown.
const evil = `"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1>&lt;<a href="javascript:hacked()">`

// A stand is a page with a table that answers what a test wants.
type stand struct {
	*httptest.Server
	page *Page
	ran  []string
	data map[string]any
	fail error
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{data: map[string]any{
		"status": control.Status{Version: evil, Sessions: []control.SessionStatus{{Account: evil, Resource: evil, Domain: evil, Address: evil, Pin: "sha256:" + evil, SASL: evil, UpstreamTLS: evil}}, Decisions: []control.Decision{
			{Kind: "key-changed", Account: evil, Contact: evil, Fingerprint: evil, Known: []string{evil}, Held: 2},
			{Kind: "question", Account: evil, Contact: evil, Question: evil}, {Kind: "unverified", Account: evil, Contact: evil, Held: 1},
			{Kind: "server-changed", Domain: evil, Presented: evil, Known: []string{evil}}, {Kind: "server-unknown", Domain: evil, Presented: evil}, {Kind: "login-weaker", Account: evil, Domain: evil, Text: evil}, {Kind: "login-unknown", Account: evil, Code: evil, Text: evil}, {Kind: "server-expiring", Domain: evil, Text: evil}, {Kind: "locked"}}},
		"contact list": []control.ContactLine{{Account: evil, Contact: evil, State: "encrypted", Trust: "verified", Fingerprint: evil, Held: 1}},
		"contact show": []control.ContactLine{{Account: evil, Contact: evil, State: evil, Trust: evil, Fingerprint: evil, Own: evil, Known: []string{evil}, Others: []string{evil}, Policy: evil, Comparing: "asked"}},
		"held list":    []control.HeldLine{{Account: evil, Contact: evil, Cause: evil}},
		"pin list":     []control.PinLine{{Domain: evil, Pin: "sha256:" + evil, Slot: evil, Source: evil, Since: evil}},
		"key show":     []control.KeyLine{{Account: evil, Fingerprint: evil, URI: evil}},
		"pin probe":    []control.Presented{{Domain: evil, SHA256: evil}},
	}}
	run := func(name string) func(context.Context, control.Call) (control.Reply, error) {
		return func(_ context.Context, c control.Call) (control.Reply, error) {
			s.ran = append(s.ran, name)
			return control.Reply{Text: name + " " + fmt.Sprint(c.Args) + evil, Data: s.data[name], QR: "xmpp:a@b"}, s.fail
		}
	}
	table := control.Table{}
	for _, name := range []string{"status", "contact list", "contact show", "contact policy", "held list", "pin list", "key show", "pin probe", "pin add"} {
		table = append(table, control.Command{Name: name, Help: "does " + name, Run: run(name), Args: []control.Arg{{Name: "account", Optional: true}, {Name: "contact", Optional: true}, {Name: "secret", Kind: control.Secret, Optional: true}, {Name: "domain", Optional: true}}})
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.page.ServeHTTP(w, r) }))
	changes := make(chan struct{}, 1)
	changes <- struct{}{}
	s.page = New(t.Context(), s.Listener.Addr().String(), func() control.Table { return table }, func() (<-chan struct{}, func()) { return changes, func() {} })
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// A browser is somebody's, with what it has got.
type browser struct {
	t      *testing.T
	s      *stand
	cookie string
	room   string
	csrf   string
}

func (s *stand) enter(t *testing.T) *browser {
	t.Helper()
	b := &browser{t: t, s: s}
	res, body := b.do("GET", s.page.Link(), nil, nil)
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		t.Fatalf("%s %s", res.Status, body)
	}
	b.cookie = cookieName + "=" + res.Cookies()[0].Value
	b.room = res.Cookies()[0].Path
	_, body = b.do("GET", b.room, nil, nil)
	b.csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(body)[1]
	s.ran = nil
	return b
}

// do makes a request; a path is one of the stand's.
func (b *browser) do(method, address string, form url.Values, change func(*http.Request)) (*http.Response, string) {
	b.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.s.URL + address
	}
	var in io.Reader
	if form != nil {
		in = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, address, in)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", b.s.URL)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if b.cookie != "" {
		r.Header.Set("Cookie", b.cookie)
	}
	if change != nil {
		change(r)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func (b *browser) form(words ...string) url.Values {
	v := url.Values{"csrf": {b.csrf}}
	for i := 0; i < len(words); i += 2 {
		v.Set(words[i], words[i+1])
	}
	return v
}

// A form runs its command once, and its answer is shown once, on the page it came from.
func TestForm(t *testing.T) {
	s := newStand(t)
	b := s.enter(t)
	res, _ := b.do("POST", b.room+"do", b.form("command", "pin add", "arg.domain", "given.example", "back", "servers"), nil)
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != b.room+"servers#answer" || len(s.ran) != 1 {
		t.Errorf("%s %s %v", res.Status, res.Header.Get("Location"), s.ran)
	}
	if _, body := b.do("GET", b.room+"servers", nil, func(r *http.Request) { r.Header.Set(lookHeader, "1") }); strings.Contains(body, "given.example") {
		t.Error("shown to a page that only looked anew")
	}
	if _, body := b.do("GET", b.room+"servers", nil, nil); !strings.Contains(body, "pin add map[domain:given.example]") {
		t.Error("no answer", body)
	}
	if _, body := b.do("GET", b.room+"servers", nil, nil); strings.Contains(body, "given.example") {
		t.Error("shown again")
	}
	s.fail = errors.New("it " + evil)
	b.do("POST", b.room+"do", b.form("command", "contact show", "arg.contact", "bob@y", "arg.secret", "s3cret", "back", "commands?name=contact+show"), nil)
	s.fail = nil
	if _, body := b.do("GET", b.room+"commands?name=contact+show", nil, nil); !strings.Contains(body, "Not done") || !strings.Contains(body, `value="bob@y"`) || strings.Contains(body, "s3cret") {
		t.Error(body)
	}
}

// What anybody may try, with a browser of the administrator's or without.
func TestAttacks(t *testing.T) {
	s := newStand(t)
	b := s.enter(t)
	other := s.enter(t)
	hit := func(what string, res *http.Response, body string, want int) {
		t.Helper()
		if res.StatusCode != want || len(s.ran) > 0 || len(res.Cookies()) > 0 {
			t.Errorf("%s: %s, ran %v, cookies %v: %.200s", what, res.Status, s.ran, res.Cookies(), body)
		}
		s.ran = nil
	}
	post := func(what string, change func(*http.Request), form url.Values) {
		t.Helper()
		res, body := b.do("POST", b.room+"do", form, change)
		hit(what, res, body, http.StatusForbidden)
	}
	good := b.form("command", "pin add")
	head := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set(name, value)
			if value == "" {
				r.Header.Del(name)
			}
		}
	}
	post("a foreign origin", head("Origin", "https://evil.example"), good)
	post("another port's origin", head("Origin", "http://127.0.0.1:1"), good)
	post("the other scheme's origin", head("Origin", strings.Replace(s.URL, "http", "https", 1)), good)
	post("no origin", head("Origin", ""), good)
	post("null as origin", head("Origin", "null"), good)
	post("a cross-site form", head("Sec-Fetch-Site", "cross-site"), good)
	post("another port's form", head("Sec-Fetch-Site", "same-site"), good)
	post("no secret of a form", nil, url.Values{"command": {"pin add"}})
	post("another visit's secret", nil, other.form("command", "pin add"))
	post("the secret in the address", func(r *http.Request) { r.URL.RawQuery = "csrf=" + b.csrf }, url.Values{"command": {"pin add"}})
	post("no cookie", head("Cookie", ""), good)
	post("another visit's cookie", head("Cookie", other.cookie), good)
	post("a cookie made up", head("Cookie", "otrproxy=AAAA"), good)
	post("too much", nil, b.form("command", "pin add", "arg.domain", strings.Repeat("x", maxBody)))

	for _, name := range []string{"evil.example", "evil.example:5280", "localhost.evil.example", "127.0.0.1.evil.example", "169.254.1.1", "[::2]:5280", "otrproxy.localhost"} {
		for _, at := range []string{b.room, "/enter?token=x", "/style.css", b.room + "live"} {
			res, body := b.do("GET", at, nil, func(r *http.Request) { r.Host = name })
			hit("the host "+name+" for "+at, res, body, http.StatusMisdirectedRequest)
		}
		res, body := b.do("POST", b.room+"do", good, func(r *http.Request) { r.Host = name; r.Header.Set("Origin", "http://"+name) })
		hit("a form to the host "+name, res, body, http.StatusMisdirectedRequest)
	}
	for _, name := range []string{"localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:4000"} { // as behind a tunnel
		if res, _ := b.do("GET", b.room, nil, func(r *http.Request) { r.Host = name }); res.StatusCode != http.StatusOK {
			t.Errorf("the host %s: %s", name, res.Status)
		}
	}
	s.ran = nil

	for _, path := range []string{"", "contact", "keys", "servers", "commands", "qr.png?account=a@b", "live"} {
		res, body := (&browser{t: t, s: s}).do("GET", b.room+path, nil, nil)
		hit("nobody's "+path, res, body, http.StatusForbidden)
		res, body = b.do("GET", other.room+path, nil, nil)
		hit("another visit's "+path, res, body, http.StatusForbidden)
		res, body = b.do("GET", b.room+path, nil, head("Sec-Fetch-Site", "cross-site"))
		hit("from elsewhere "+path, res, body, http.StatusForbidden)
	}
	for _, path := range []string{"/", "/templates/frame.html", "/static/../templates/frame.html", "/enter", "/enter?token=", "/enter?token=AAAA", "/..%2f..%2fetc/passwd", b.room + "do", b.room + "leave"} {
		res, body := b.do("GET", path, nil, nil)
		if res.StatusCode < 300 || len(s.ran) > 0 || len(res.Cookies()) > 0 {
			t.Errorf("%s: %s %v %.100s", path, res.Status, s.ran, body)
		}
	}
	for _, back := range []string{"https://evil.example/", "//evil.example", `\\evil.example`, "javascript:alert(1)", "/enter?token=x", "../x", "keys/../../x", "live"} {
		if res, _ := b.do("POST", b.room+"do", b.form("command", "pin add", "back", back), nil); res.Header.Get("Location") != b.room {
			t.Errorf("back to %q: %s", back, res.Header.Get("Location"))
		}
	}
}

// A link works once, for a while, and not for who only looks whether it is there.
func TestLinks(t *testing.T) {
	s := newStand(t)
	nobody := &browser{t: t, s: s}
	link := s.page.Link()
	if res, _ := nobody.do("HEAD", link, nil, nil); res.StatusCode == http.StatusOK || len(res.Cookies()) > 0 {
		t.Errorf("HEAD: %s", res.Status)
	}
	res, _ := nobody.do("GET", link, nil, nil)
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		t.Fatalf("%s", res.Status)
	}
	c := res.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || len(c.Path) < 20 || len(c.Value) < 20 || c.Domain != "" {
		t.Errorf("%+v", c)
	}
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
		if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
			t.Errorf("%s is not in %s", want, csp)
		}
	}
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"} {
		if res.Header.Get(name) != want {
			t.Errorf("%s: %s", name, res.Header.Get(name))
		}
	}
	if res, body := nobody.do("GET", link, nil, nil); res.StatusCode != http.StatusForbidden || len(res.Cookies()) > 0 || !strings.Contains(body, "otrproxy web") {
		t.Errorf("replayed: %s", res.Status)
	}
	old := s.page.Link()
	now := time.Now()
	s.page.doors.now = func() time.Time { return now.Add(linkLife + time.Second) }
	if res, _ := nobody.do("GET", old, nil, nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("too old: %s", res.Status)
	}
	b := s.enter(t)
	s.page.doors.now = func() time.Time { return now.Add(linkLife + visitLife + time.Minute) }
	if res, _ := b.do("GET", b.room, nil, nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("a visit of yesterday: %s", res.Status)
	}
	b = s.enter(t)
	if res, _ := b.do("POST", b.room+"leave", b.form(), nil); res.StatusCode != http.StatusOK {
		t.Errorf("leave: %s", res.Status)
	}
	if res, _ := b.do("GET", b.room, nil, nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("after having left: %s", res.Status)
	}
}

// Whatever others write is text on every page. (That a browser agrees is seen in
// test/browser.)
func TestNothingOfOthersIsMarkup(t *testing.T) {
	s := newStand(t)
	b := s.enter(t)
	q := url.QueryEscape(evil)
	b.do("POST", b.room+"do", b.form("command", "pin probe", "arg.domain", evil, "back", "servers"), nil)
	for _, path := range []string{"servers", "", "contact?account=" + q + "&contact=" + q, "keys", "servers", "commands", "commands?name=pin+probe", "commands?name=" + q} {
		res, body := b.do("GET", b.room+path, nil, nil)
		if strings.Contains(body, "<script>") || strings.Contains(body, "<img src=x") || strings.Contains(body, "href=\"javascript") || regexp.MustCompile(`\son[a-z]+="`).MatchString(body) {
			i := strings.Index(body, "<script>")
			t.Errorf("%s: %s: %.300s", path, res.Status, body[max(i-100, 0):])
		}
		if res.StatusCode == http.StatusOK && !strings.Contains(body, "window.hacked=1") && path != "commands" && path != "commands?name=pin+probe" {
			t.Errorf("%s shows none of it", path)
		}
	}
}

// An open page is told of changes.
func TestLive(t *testing.T) {
	s := newStand(t)
	b := s.enter(t)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+b.room+"live", nil)
	r.Header.Set("Cookie", b.cookie)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got []byte
	buf := make([]byte, 100)
	for !strings.Contains(string(got), "data: changed\n\n") {
		n, err := res.Body.Read(buf)
		if err != nil {
			t.Fatalf("%q %v", got, err)
		}
		got = append(got, buf[:n]...)
	}
	if res.Header.Get("Content-Type") != "text/event-stream" {
		t.Error(res.Header)
	}
}

// FuzzBack: a form leads back to a page of ours, or to the first.
func FuzzBack(f *testing.F) {
	for _, s := range []string{"servers", "contact?account=a@b&contact=c@d", "//evil.example", "https://evil.example/servers", "commands?name=x#y", "../x", "servers/../../x", "%2e%2e/x", "\\\\evil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := back(s)
		if got == "" {
			return
		}
		base, _ := url.Parse("http://127.0.0.1:1/room/")
		u, err := base.Parse("/room/" + got)
		if err != nil || u.Host != base.Host || u.Scheme != "http" {
			t.Fatalf("%q leads to %q: %v", s, got, err)
		}
		switch u.Path {
		case "/room/", "/room/contact", "/room/keys", "/room/servers", "/room/commands":
		default:
			t.Errorf("%q leads to %s", s, u.Path)
		}
	})
}
