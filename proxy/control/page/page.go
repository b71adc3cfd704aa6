// Package page is the household administrator's web page: the commands of package
// control as forms, and what they answer at a glance. It works without script; with it,
// it follows what happens.
//
//	enter.go   who may: the link that works once, the cookie, and what a request must be
//	page.go    the pages, and the one form handler
//	view.go    what the pages show, made of what commands answer
//	live.go    tells open pages that something has changed
//
// The page has no way to anything but the table of commands.
package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"rsc.io/qr"

	"otrproxy/proxy/control"
)

//go:embed templates static
var files embed.FS

// A Page serves the web page.
type Page struct {
	address string // as the browser reaches it: host:port
	table   func() control.Table
	watch   func() (<-chan struct{}, func())
	doors   doors
	mux     *http.ServeMux
	ctx     context.Context
}

// New makes the page that is reached at an address. Commands come from table, and watch
// tells of changes. Live connections end with ctx.
func New(ctx context.Context, address string, table func() control.Table, watch func() (<-chan struct{}, func())) *Page {
	p := &Page{address: address, table: table, watch: watch, mux: http.NewServeMux(), ctx: ctx}
	static := http.FileServerFS(files)
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		p.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/static/" + name
			static.ServeHTTP(w, r)
		})
	}
	p.mux.HandleFunc("GET /enter", p.enter)
	p.mux.HandleFunc("GET /{room}/{$}", p.inside(p.overview))
	p.mux.HandleFunc("GET /{room}/contact", p.inside(p.contact))
	p.mux.HandleFunc("GET /{room}/keys", p.inside(p.keys))
	p.mux.HandleFunc("GET /{room}/servers", p.inside(p.servers))
	p.mux.HandleFunc("GET /{room}/commands", p.inside(p.commands))
	p.mux.HandleFunc("GET /{room}/qr.png", p.inside(p.code))
	p.mux.HandleFunc("GET /{room}/live", p.inside(p.live))
	p.mux.HandleFunc("POST /{room}/do", p.inside(p.do))
	p.mux.HandleFunc("POST /{room}/leave", p.inside(p.leave))
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { p.refuse(w, r, http.StatusNotFound, noSuchPage) })
	return p
}

// admin is who uses the page: whoever could use the control socket.
var admin = control.Actor{Place: control.OnPage}

// run runs a command for the page.
func (p *Page) run(ctx context.Context, name string, args map[string]string) (control.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return p.table().Run(ctx, admin, name, args)
}

// templates are read when somebody first looks at the page.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"grouped": grouped, "stateWord": stateWord, "trustWord": trustWord, "clock": clock, "waits": waits, "pins": pinParts,
		"plus": func(a, b int) int { return a + b },
	}).ParseFS(files, "templates/*.html"))
})

// render shows a template, all of it or nothing.
func (p *Page) render(w http.ResponseWriter, r *http.Request, status int, name string, v *view) {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		b.WriteTo(w)
	}
}

func (p *Page) overview(w http.ResponseWriter, r *http.Request, v *visitor) {
	view, err := p.view(r, v, "Overview", "status", "contact list", "held list")
	p.shown(w, r, view, err, "overview.html")
}

// shown renders a view, or says why it could not be made.
func (p *Page) shown(w http.ResponseWriter, r *http.Request, view *view, err error, name string) {
	if err != nil {
		p.refuse(w, r, http.StatusInternalServerError, "This cannot be shown: "+err.Error()+".")
		return
	}
	p.render(w, r, http.StatusOK, name, view)
}

func (p *Page) contact(w http.ResponseWriter, r *http.Request, v *visitor) {
	q := r.URL.Query()
	args := map[string]string{"account": q.Get("account"), "contact": q.Get("contact")}
	shown, err := p.run(r.Context(), "contact show", args)
	if err != nil {
		p.refuse(w, r, http.StatusNotFound, "This contact cannot be shown: "+err.Error()+".")
		return
	}
	view, err := p.view(r, v, q.Get("contact"), "status", "held list")
	if err == nil {
		view.Contact = &shown.Data.([]control.ContactLine)[0]
		policy, err := p.run(r.Context(), "contact policy", args)
		if err == nil {
			view.Policy = policy.Text
		}
	}
	p.shown(w, r, view, err, "contact.html")
}

func (p *Page) keys(w http.ResponseWriter, r *http.Request, v *visitor) {
	view, err := p.view(r, v, "Keys", "status", "key show")
	p.shown(w, r, view, err, "keys.html")
}

func (p *Page) servers(w http.ResponseWriter, r *http.Request, v *visitor) {
	view, err := p.view(r, v, "Servers", "status", "pin list")
	p.shown(w, r, view, err, "servers.html")
}

// commands is the whole table, or the form of one command.
func (p *Page) commands(w http.ResponseWriter, r *http.Request, v *visitor) {
	name := r.URL.Query().Get("name")
	title := "All commands"
	if name != "" {
		title = name
	}
	view, err := p.view(r, v, title, "status")
	if err == nil {
		table := p.table()
		for i := range table {
			if table[i].May(admin) {
				view.Table = append(view.Table, &table[i])
			}
		}
		if name != "" {
			if view.Command = table.Get(name); view.Command == nil {
				p.refuse(w, r, http.StatusNotFound, noSuchPage)
				return
			}
			if !view.Command.May(admin) { // the whole table, which says where it is done
				view.Command = nil
			} else {
				view.Fields = view.Command.Fields(admin, v.lastTry(name))
			}
		}
	}
	p.shown(w, r, view, err, "commands.html")
}

// code is an account's fingerprint as a QR code that other programs read.
func (p *Page) code(w http.ResponseWriter, r *http.Request, _ *visitor) {
	reply, err := p.run(r.Context(), "key show", map[string]string{"account": r.URL.Query().Get("account")})
	if err != nil || reply.QR == "" {
		p.refuse(w, r, http.StatusNotFound, noSuchPage)
		return
	}
	code, err := qr.Encode(reply.QR, qr.L)
	if err != nil {
		p.refuse(w, r, http.StatusInternalServerError, "The code could not be drawn.")
		return
	}
	const scale, quiet = 6, 4 // pixels a module, and modules around it (ISO 18004)
	side := (code.Size + 2*quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			if code.Black(x/scale-quiet, y/scale-quiet) {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	w.Header().Set("Content-Type", "image/png")
	png.Encode(w, img)
}

// do runs the command of a form, and shows its answer on the page it came from.
func (p *Page) do(w http.ResponseWriter, r *http.Request, v *visitor) {
	name := r.PostForm.Get("command")
	args := map[string]string{}
	cmd := p.table().Get(name)
	if cmd == nil {
		p.refuse(w, r, http.StatusNotFound, noSuchPage)
		return
	}
	for _, x := range cmd.Args {
		value := r.PostForm.Get("arg." + x.Name)
		if x.Kind != control.Secret {
			value = strings.ReplaceAll(value, "\r\n", "\n")
		}
		if value != "" {
			args[x.Name] = value
		}
	}
	reply, err := p.run(r.Context(), name, args)
	if err != nil && p.ctx.Err() != nil {
		err = errors.New("otrproxy is being stopped")
	}
	v.answered(cmd, args, reply, err)
	http.Redirect(w, r, v.path()+back(r.PostForm.Get("back")), http.StatusSeeOther)
}

// back is the page a form came from, and goes nowhere else.
func back(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Opaque != "" {
		return ""
	}
	switch u.Path {
	case "", "contact", "keys", "servers", "commands":
		if u.RawQuery == "" {
			return u.Path + "#answer"
		}
		return u.Path + "?" + u.Query().Encode() + "#answer"
	}
	return ""
}

func (p *Page) leave(w http.ResponseWriter, r *http.Request, v *visitor) {
	p.doors.close(v)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: v.path(), MaxAge: -1})
	p.refuse(w, r, http.StatusOK, "You have left. A new link is made by: otrproxy web")
}
