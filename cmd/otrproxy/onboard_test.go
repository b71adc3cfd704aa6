package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"otrproxy/proxy/control"
)

// A device gets the CA from the page, compares it with what the box says, and trusts the box
// from then on. By the page nothing else of the state directory can be had.
func TestOnboarding(t *testing.T) {
	conf, state := writeConf(t, "listen: [\"127.0.0.1:0\"]\nonboarding: \"127.0.0.1:0\"\nnames: [otrproxy.lan]\nnotify: {command: [canary-command]}\ndomains: {canary-domain.example: }\n")
	for _, name := range []string{"accounts/canary@example.org/otr.private_key", "accounts/canary@example.org/login.keys", "pins.yaml"} {
		os.MkdirAll(filepath.Dir(filepath.Join(state, name)), 0o700)
		text := "canary-in-" + filepath.Base(name)
		if name == "pins.yaml" {
			text = "{}\n# " + text
		}
		if err := os.WriteFile(filepath.Join(state, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(state, 0o700)
	d := startDaemon(t, conf)
	base := "http://" + d.says(t, `devices come to trust this machine.*address=(\S+) pages=http://\S+/`)[1]
	addr := d.says(t, `msg=listening address=(\S+)`)[1]
	d.says(t, "msg=ready")

	out, errs, code := call(t, "ca", "show", "--json", "--config", conf)
	var shown []control.CALine
	if err := json.Unmarshal([]byte(out), &shown); code != 0 || err != nil || len(shown) != 1 {
		t.Fatalf("%d %v %s %s", code, err, out, errs)
	}
	if len(shown[0].Pages) != 1 || shown[0].Pages[0] != base+"/" || len(shown[0].Only) == 0 || shown[0].Only[0] != "canary-domain.example" {
		t.Errorf("%+v", shown[0])
	}
	if out, _, _ := call(t, "ca", "show", "--config", conf); !strings.Contains(out, "SHA-256 "+shown[0].SHA256) || !strings.Contains(out, base+"/") {
		t.Error(out)
	}

	get := func(path string) []byte {
		t.Helper()
		r, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	page := get("/")
	if plain := strings.NewReplacer("</span>", "", "<span>", "", " ", "", "\n", "").Replace(string(page)); !strings.Contains(strings.ReplaceAll(plain, ":", ""), strings.ReplaceAll(shown[0].SHA256, ":", "")) {
		t.Error("the page shows another fingerprint than the box")
	}
	ca, err := x509.ParseCertificate(get("/otrproxy.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, at := range []string{addr, strings.TrimPrefix(base, "http://")} { // for programs, and the page itself
		for _, name := range []string{"127.0.0.1", "otrproxy.lan", "localhost"} {
			c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: roots, ServerName: name})
			if err != nil {
				t.Errorf("%s as %s: %v", at, name, err)
				continue
			}
			c.Close()
		}
	}

	// Whatever is asked for, nothing of the other files comes.
	var secrets [][]byte
	var paths []string
	err = filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "ca.pem" {
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 8 { // more than a number
			secrets = append(secrets, b)
		}
		rel, _ := filepath.Rel(state, path)
		paths = append(paths, rel, path)
		return err
	})
	if err != nil || len(secrets) < 4 {
		t.Fatal(err, len(secrets))
	}
	for _, path := range append(paths, "", "otrproxy.pem", "otrproxy.mobileconfig", "otrproxy.crt", "ca.pem", filepath.Base(conf), conf) {
		for _, before := range []string{"/", "/../", "/%2e%2e/", "/..%2f", "/static/../", "//"} {
			b := get(before + path)
			for _, s := range secrets {
				if bytes.Contains(b, bytes.TrimSpace(s)) {
					t.Errorf("%s%s shows %q", before, path, s)
				}
			}
			if bytes.Contains(b, []byte("canary-in")) || bytes.Contains(b, []byte("canary-command")) || bytes.Contains(b, []byte("canary@")) || bytes.Contains(b, []byte("PRIVATE")) {
				t.Errorf("%s%s: %s", before, path, b)
			}
		}
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Who opens the proxy to other machines is told of the page; who is alone is not.
func TestOnboardingIsToldOf(t *testing.T) {
	conf, _ := writeConf(t, "listen: [\"127.0.0.1:0\"]\n")
	d := startDaemon(t, conf)
	d.says(t, "msg=ready")
	d.mu.Lock()
	if strings.Contains(d.log.String(), "onboarding") {
		t.Errorf("on loopback alone:\n%s", d.log.String())
	}
	d.mu.Unlock()
	if out, _, code := call(t, "ca", "show", "--config", conf); code != 0 || !strings.Contains(out, `set "onboarding"`) {
		t.Error(code, out)
	}
	conf, _ = writeConf(t, "listen: [\"0.0.0.0:0\"]\n")
	startDaemon(t, conf).says(t, `other devices can connect.*onboarding`)
	conf, _ = writeConf(t, "listen: [\"127.0.0.1:0\"]\nonboarding: \"192.0.2.1:5288\"\n")
	cmd := command("run", "--config", conf)
	if b, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(b), "cannot serve the page for devices on 192.0.2.1:5288") {
		t.Errorf("%v %s", err, b)
	}
	if out, _, code := call(t, "check", "--config", conf); code != 0 || !strings.Contains(out, "devices  http://192.0.2.1:5288/") {
		t.Error(code, out)
	}
}
