// Package arch holds the test of who may import whom.
package arch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed are the packages of ours that a package may import. What is not listed
// may import none.
var allowed = map[string][]string{
	"otrproxy/otrlayer":           {"otrproxy/otrlayer/otr"},
	"otrproxy/test/interop":       {"otrproxy/otrlayer/otr", "otrproxy/test/need"},
	"otrproxy/test/need":          {"otrproxy/otrlayer/otr"},
	"otrproxy/test/chromium":      {"otrproxy/test/need"},
	"otrproxy/test/readers":       {"otrproxy/test/need"},
	"otrproxy/proxy":              {"otrproxy/config", "otrproxy/otrlayer", "otrproxy/proxy/control", "otrproxy/proxy/filter", "otrproxy/stanza"},
	"otrproxy/proxy/filter":       {"otrproxy/config", "otrproxy/stanza"},
	"otrproxy/cmd/otrproxy":       {"otrproxy/config", "otrproxy/confine", "otrproxy/proxy", "otrproxy/proxy/control", "otrproxy/proxy/control/page", "otrproxy/proxy/control/welcome", "otrproxy/test/client", "otrproxy/test/server"},
	"otrproxy/proxy/control/page": {"otrproxy/proxy/control"},

	"otrproxy/proxy/control/welcome": {"otrproxy/proxy/control"},

	"otrproxy/test/server":    {"otrproxy/stanza"},
	"otrproxy/test/client":    {"otrproxy/stanza"},
	"otrproxy/test/bench":     {"otrproxy/otrlayer", "otrproxy/stanza", "otrproxy/test/client", "otrproxy/test/server"},
	"otrproxy/test/bench/otr": {"otrproxy/otrlayer/otr"},
}

// strangers are imports of others' packages that only one place may have.
var strangers = map[string]string{
	"github.com/coyim/otr3":                          "",
	"github.com/prometheus/client_golang/prometheus": "otrproxy/proxy",
	"github.com/spf13/cobra":                         "otrproxy/cmd/otrproxy",
	"filippo.io/age":                                 "otrproxy/proxy",
	"rsc.io/qr":                                      "otrproxy/cmd/otrproxy otrproxy/proxy/control/page otrproxy/proxy/control/welcome",
	"html/template":                                  "otrproxy/proxy/control/page otrproxy/proxy/control/welcome",
	"go.yaml.in/yaml/v3":                             "otrproxy/config otrproxy/proxy",
	"encoding/xml":                                   "",
	"mellium.im/xmpp/jid":                            "otrproxy/proxy",
	"github.com/landlock-lsm/go-landlock/landlock":   "otrproxy/confine",
	"github.com/elastic/go-seccomp-bpf":              "otrproxy/confine",
}

// forbidden are imports a package must not know.
var forbidden = map[string][]string{
	"otrproxy/stanza":             {"net", "os", "crypto/tls"},
	"otrproxy/otrlayer":           {"net", "net/http", "encoding/xml", "go.yaml.in/yaml/v3"},
	"otrproxy/otrlayer/otr":       {"net", "net/http", "os", "sync", "crypto/rand", "encoding/xml"},
	"otrproxy/config":             {"net/http", "crypto/tls"},
	"otrproxy/confine":            {"net/http", "crypto/tls", "os/exec"},
	"otrproxy/proxy/filter":       {"net", "net/http", "os", "sync", "encoding/xml"},
	"otrproxy/proxy/control":      {"encoding/xml", "crypto/tls", "net/http"},
	"otrproxy/proxy/control/page": {"encoding/xml", "crypto/tls", "os", "net/http/httputil"},

	"otrproxy/proxy/control/welcome": {"encoding/xml", "os", "net/http/httputil", "crypto/ecdsa"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "otrproxy/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, imports := f[0], f[1:]
		seen++
		for _, i := range imports {
			if strings.HasPrefix(i, "otrproxy/") && !slices.Contains(allowed[pkg], i) {
				t.Errorf("%s must not import %s", pkg, i)
			}
			if homes, ok := strangers[i]; ok && !slices.Contains(strings.Fields(homes), pkg) {
				t.Errorf("%s must not import %s", pkg, i)
			}
			if slices.Contains(forbidden[pkg], i) {
				t.Errorf("%s must not know %s", pkg, i)
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d packages seen", seen)
	}
}

// The program is built without otr3, which is only a peer in tests; and the engine
// takes its clock and its randomness from its caller.
func TestProductWithoutOTR3(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "otrproxy/cmd/otrproxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "otrproxy/otrlayer/otr\n") {
		t.Error("the program is built without the OTR engine")
	}
	if strings.Contains(string(out), "otr3") {
		t.Error("the program is built with otr3")
	}
	out, err = exec.Command("grep", "-nE", `time\.(Now|Since|After|Sleep|Tick|NewTimer)|\bgo func|\bgo [a-z]+\(`, "-r", "--include=*.go", "--exclude=*_test.go", "../../otrlayer/otr").Output()
	if err == nil || len(out) > 0 {
		t.Errorf("the engine reads a clock or starts a goroutine:\n%s", out)
	}
}
