package page

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"otrproxy/proxy/control"
)

// Who has left hears nothing any more.
func TestLiveAfterLeave(t *testing.T) {
	changes := make(chan struct{}, 1)
	var p *Page
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) }))
	table := control.Table{{Name: "status", Help: "x", Run: func(context.Context, control.Call) (control.Reply, error) {
		return control.Reply{Data: control.Status{}}, nil
	}}}
	p = New(t.Context(), srv.Listener.Addr().String(), func() control.Table { return table }, func() (<-chan struct{}, func()) { return changes, func() {} })
	srv.Start()
	defer srv.Close()
	v, cookie := p.doors.open(tokenOf(p.Link()))
	r, _ := http.NewRequest("GET", srv.URL+v.path()+"live", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r = r.WithContext(ctx)
	r.Header.Set("Cookie", cookieName+"="+cookie)
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(err, res.Status)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Scan()
	leave, _ := http.NewRequest("POST", srv.URL+v.path()+"leave", strings.NewReader(url.Values{"csrf": {v.csrf}}.Encode()))
	leave.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	leave.Header.Set("Origin", srv.URL)
	leave.Header.Set("Cookie", cookieName+"="+cookie)
	if res, err := http.DefaultClient.Do(leave); err != nil || res.StatusCode != 200 {
		t.Fatal(err, res.Status)
	}
	changes <- struct{}{}
	for lines.Scan() {
		if strings.Contains(lines.Text(), "changed") {
			t.Error("still told of changes after having left")
			return
		}
	}
}

func tokenOf(link string) string { return link[strings.Index(link, "token=")+6:] }

// A form with too much in it, requests without a cookie: memory and time.
func TestOddRequests(t *testing.T) {
	s := newStand(t)
	b := s.enter(t)
	for _, back := range []string{"//evil", "\\\\evil", "/\\evil", "https:evil", "contact\r\nX: y", "//user@", "?x=//evil", "contact?x#y", "%2f%2fevil", "javascript:alert(1)", "commands/../../../evil"} {
		res, _ := b.do("POST", b.room+"do", b.form("command", "status", "back", back), nil)
		loc := res.Header.Get("Location")
		u, err := url.Parse(loc)
		if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, b.room) {
			t.Errorf("%q -> %q", back, loc)
		}
	}
	for _, host := range []string{"127.0.0.1.evil.example", "evil.example", "localhost.", "127.0.0.1@evil", "0.0.0.0", "2130706433", ""} {
		res, _ := b.do("GET", b.room, nil, func(r *http.Request) { r.Host = host })
		if host != "" && res.StatusCode == 200 {
			t.Errorf("%q let in", host)
		}
	}
	for _, origin := range []string{"null", "http://evil", "https://" + s.Listener.Addr().String(), "http://" + s.Listener.Addr().String() + ".evil", "http://x@" + s.Listener.Addr().String(), ""} {
		res, _ := b.do("POST", b.room+"do", b.form("command", "status"), func(r *http.Request) { r.Header.Set("Origin", origin) })
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("the origin %q: %d", origin, res.StatusCode)
		}
	}
	for _, site := range []string{"cross-site", "same-site", "SAME-ORIGIN", "x"} {
		res, _ := b.do("GET", b.room, nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) })
		if res.StatusCode == 200 {
			t.Errorf("%q let in", site)
		}
	}
	for _, ct := range []string{"multipart/form-data; boundary=x", "text/plain", "application/json"} {
		res, _ := b.do("POST", b.room+"do", b.form("command", "status"), func(r *http.Request) { r.Header.Set("Content-Type", ct) })
		if res.StatusCode < 400 {
			t.Errorf("%q %d", ct, res.StatusCode)
		}
	}
	// room in another case, encoded, doubled
	for _, path := range []string{strings.ToUpper(b.room), "/." + b.room, b.room + "/", strings.Replace(b.room, "/", "/%2e/", 1)} {
		if res, _ := b.do("GET", path, nil, nil); res.StatusCode == http.StatusOK {
			t.Errorf("%s is let in", path)
		}
	}
	// the query cannot take csrf's place
	res, _ := b.do("POST", b.room+"do?csrf="+b.csrf, url.Values{"command": {"status"}}, nil)
	if res.StatusCode != 403 {
		t.Error("csrf in the query")
	}
}
