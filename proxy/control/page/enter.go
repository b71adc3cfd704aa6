package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"otrproxy/proxy/control"
)

// Who may see the page: whoever has come through a link that "otrproxy web" made, which
// works once. The browser gets a cookie then, and a path that nobody can guess: other
// ports of this machine share our cookies, but for those of a path they do not know.
//
// A request must name this machine as its host, whatever its address is: a name that
// somebody else's DNS points here (rebinding) is refused. What changes anything must
// come from a page of ours, and say the secret that stands in its forms.

const (
	cookieName = "otrproxy"
	linkLife   = 10 * time.Minute
	visitLife  = 12 * time.Hour // since the last request
	maxLinks   = 100
	maxVisits  = 100
	maxBody    = 64 << 10
)

// What people read who may not, or not so.
const (
	noSuchPage = "There is no such page."
	comeIn     = "This page opens with a link that works once. Make one with: otrproxy web"
	usedLink   = "This link was used already, or is too old. Make a new one with: otrproxy web"
	otherHost  = "This page is reached under the name of this machine only: localhost, or 127.0.0.1."
	otherPage  = "This did not come from a page of otrproxy, so nothing was done. If you meant it, open the page again and try once more."
)

// doors are the links that were made and the visits they began.
type doors struct {
	mu     sync.Mutex
	links  map[[32]byte]time.Time // by the hash of their token, until when
	visits map[string]*visitor    // by room
	now    func() time.Time       // nil for the clock
}

// A visitor is a browser that has come through a link.
type visitor struct {
	room   string
	secret [32]byte // hash of the cookie's value
	csrf   string

	left chan struct{} // closed when they have left

	mu     sync.Mutex
	until  time.Time
	answer *answer
	tried  map[string]string // what was filled in last, but for secrets
	form   string            // in which form
}

func (v *visitor) path() string { return "/" + v.room + "/" }

func (d *doors) clock() time.Time {
	if d.now != nil {
		return d.now()
	}
	return time.Now()
}

// Link makes an address that works once.
func (p *Page) Link() string {
	token := rand.Text()
	d := &p.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock()
	if d.links == nil || len(d.links) >= maxLinks {
		d.links = map[[32]byte]time.Time{}
	}
	d.links[sha256.Sum256([]byte(token))] = now.Add(linkLife)
	return "http://" + p.address + "/enter?token=" + token
}

// open uses a token up, and begins a visit.
func (d *doors) open(token string) (v *visitor, cookie string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, key := d.clock(), sha256.Sum256([]byte(token))
	until, ok := d.links[key]
	delete(d.links, key)
	if !ok || now.After(until) {
		return nil, ""
	}
	for room, old := range d.visits {
		if old.over(now) {
			delete(d.visits, room)
		}
	}
	if d.visits == nil || len(d.visits) >= maxVisits {
		d.visits = map[string]*visitor{}
	}
	cookie = rand.Text()
	v = &visitor{room: strings.ToLower(rand.Text()), secret: sha256.Sum256([]byte(cookie)), csrf: rand.Text(), left: make(chan struct{}), until: now.Add(visitLife)}
	d.visits[v.room] = v
	return v, cookie
}

func (d *doors) close(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.visits[v.room] == v {
		close(v.left)
		delete(d.visits, v.room)
	}
}

func (v *visitor) over(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.After(v.until)
}

// visitor finds who a request is from; nil for nobody.
func (d *doors) visitor(r *http.Request) *visitor {
	d.mu.Lock()
	v := d.visits[r.PathValue("room")]
	d.mu.Unlock()
	if v == nil {
		return nil
	}
	now := d.clock()
	for _, c := range r.CookiesNamed(cookieName) {
		if sum := sha256.Sum256([]byte(c.Value)); subtle.ConstantTimeCompare(sum[:], v.secret[:]) == 1 && !v.over(now) {
			v.mu.Lock()
			v.until = now.Add(visitLife)
			v.mu.Unlock()
			return v
		}
	}
	return nil
}

func (p *Page) enter(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead { // somebody looks whether there is a page
		p.refuse(w, r, http.StatusMethodNotAllowed, comeIn)
		return
	}
	v, cookie := p.doors.open(r.URL.Query().Get("token"))
	if v == nil {
		p.refuse(w, r, http.StatusForbidden, usedLink)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: cookie, Path: v.path(), HttpOnly: true, SameSite: http.SameSiteStrictMode})
	// Not a redirect: a cookie that is for this site alone would not go along with one
	// that began elsewhere, as in a mail program.
	p.render(w, r, http.StatusOK, "enter.html", &view{Title: "Welcome", Room: v.path()})
}

// ServeHTTP checks what every request must be, and sets what every answer says.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // with less, forms would not say where they come from
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	h.Set("Cache-Control", "no-store")
	if !p.ourHost(r.Host) {
		p.refuse(w, r, http.StatusMisdirectedRequest, otherHost)
		return
	}
	p.mux.ServeHTTP(w, r)
}

// ourHost reports whether a request names this machine: the port may be another one,
// as behind a tunnel.
func (p *Page) ourHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	own, _, _ := net.SplitHostPort(p.address)
	return slices.Contains([]string{"localhost", "127.0.0.1", "::1", "[::1]", own}, strings.ToLower(name))
}

// inside lets in who has come through a link.
func (p *Page) inside(f func(http.ResponseWriter, *http.Request, *visitor)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := p.doors.visitor(r)
		if v == nil {
			p.refuse(w, r, http.StatusForbidden, comeIn)
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			p.refuse(w, r, http.StatusForbidden, otherPage)
			return
		}
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if !sameOrigin(r) || r.ParseForm() != nil || subtle.ConstantTimeCompare([]byte(r.PostForm.Get("csrf")), []byte(v.csrf)) != 1 {
				p.refuse(w, r, http.StatusForbidden, otherPage)
				return
			}
		}
		f(w, r, v)
	}
}

// sameOrigin reports whether a form was sent by a page of the host it is sent to.
func sameOrigin(r *http.Request) bool {
	return r.Host != "" && r.Header.Get("Origin") == "http://"+r.Host
}

// refuse shows a page that says no.
func (p *Page) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	p.render(w, r, status, "refused.html", &view{Title: "otrproxy", Why: why})
}

// An answer is what the last command said, to be shown once.
type answer struct {
	Command   string
	Text      string
	Failed    bool
	Presented *control.Presented
}

func (v *visitor) answered(cmd *control.Command, args map[string]string, reply control.Reply, err error) {
	a := &answer{Command: cmd.Name, Text: reply.Text}
	if err != nil {
		a.Text, a.Failed = err.Error(), true
	}
	if p, ok := reply.Data.([]control.Presented); ok && len(p) == 1 && err == nil {
		a.Presented = &p[0]
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer, v.form, v.tried = a, cmd.Name, map[string]string{}
	for _, x := range cmd.Args {
		if x.Kind != control.Secret {
			v.tried[x.Name] = args[x.Name]
		}
	}
}

// takeAnswer is what the last command said, once.
func (v *visitor) takeAnswer() *answer {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.answer
	v.answer = nil
	return a
}

// lastTry is what was filled into a form the last time.
func (v *visitor) lastTry(form string) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.form == form {
		return v.tried
	}
	return nil
}
