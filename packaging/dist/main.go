// Command dist makes what is handed out: a static program for each system, archives with
// manual pages and completions, packages for Debian and for RPM, the list of what is in
// them (an SBOM), and the checksums of all of that.
//
// The same commit gives the same bytes, wherever and whenever it is built: times are that of
// the commit (SOURCE_DATE_EPOCH), orders are fixed, and no path or user of the machine is in
// any of it. It has a module of its own, so that what packages need is no part of the program.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// A target is a system that the program is built for. Package is its architecture in the
// words of nfpm, "" where there are no packages for it.
type target struct{ os, arch, variant, pkg string }

var targets = []target{
	{"linux", "amd64", "", "amd64"}, {"linux", "arm64", "", "arm64"}, {"linux", "arm", "7", "arm7"}, {"linux", "386", "", "386"},
	{"windows", "amd64", "", ""}, {"darwin", "amd64", "", ""}, {"darwin", "arm64", "", ""}, {"freebsd", "amd64", "", ""},
}

func (t target) String() string {
	if t.variant != "" {
		return t.os + "-" + t.arch + "v" + t.variant
	}
	return t.os + "-" + t.arch
}

func (t target) program() string {
	if t.os == "windows" {
		return "otrproxy.exe"
	}
	return "otrproxy"
}

// A release is one run.
type release struct {
	root, out, work string
	version         string
	at              time.Time
}

// A file is one that is handed out: what it is called in archives, and its bytes.
type file struct {
	name string
	mode int64
	text []byte
}

func main() {
	r := release{}
	flag.StringVar(&r.root, "root", "", "the project's directory")
	flag.StringVar(&r.out, "out", "", "where everything is written; what is there is removed")
	flag.StringVar(&r.version, "version", "", "version, as git describe gives it")
	only := flag.String("only", "", "systems to build for, such as linux-amd64,windows-amd64; without it all")
	flag.Parse()
	if *only != "" {
		targets = slices.DeleteFunc(targets, func(t target) bool { return !slices.Contains(strings.Split(*only, ","), t.String()) })
	}
	if err := r.make(); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func (r *release) make() (err error) {
	if r.at, err = r.time(); err != nil {
		return err
	}
	if !regexp.MustCompile(`^v?[0-9]+\.`).MatchString(r.version) { // a commit, without any tag before it
		r.version = "0.1.0-dev." + r.at.Format("20060102") + "." + r.version
	}
	r.version = strings.TrimPrefix(r.version, "v")
	if r.work, err = os.MkdirTemp("", "otrproxy-dist"); err != nil {
		return err
	}
	defer os.RemoveAll(r.work)
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	programs := map[target]string{}
	for _, t := range targets {
		if programs[t], err = r.build(t); err != nil {
			return err
		}
	}
	manual, completions, err := r.manual()
	if err != nil {
		return err
	}
	for _, t := range targets {
		if err := r.archive(t, programs[t], append(slices.Clone(manual), completions...)); err != nil {
			return err
		}
		if err := r.sbom(t, programs[t]); err != nil {
			return err
		}
		if t.pkg == "" {
			continue
		}
		for _, format := range []string{"deb", "rpm"} {
			if err := r.pack(format, t, programs[t], manual, completions); err != nil {
				return fmt.Errorf("%s for %s: %w", format, t, err)
			}
		}
	}
	return r.checksums()
}

// time is that of the commit.
func (r *release) time() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "-C", r.root, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("the time of the commit: %w (or set SOURCE_DATE_EPOCH)", err)
		}
		text = strings.TrimSpace(string(out))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	os.Setenv("SOURCE_DATE_EPOCH", text)
	return time.Unix(n, 0).UTC(), err
}

func (r *release) build(t target) (path string, err error) {
	path = filepath.Join(r.work, t.String(), t.program())
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version="+r.version, "-o", path, "./cmd/otrproxy")
	cmd.Dir = r.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+t.os, "GOARCH="+t.arch, "GOARM="+t.variant, "GOAMD64=v1", "GO386=sse2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building for %s: %w\n%s", t, err, out)
	}
	return path, nil
}

// manual has the program itself write its manual pages and completions.
func (r *release) manual() (manual, completions []file, err error) {
	self := filepath.Join(r.work, "self")
	if out, err := exec.Command("go", "build", "-C", r.root, "-ldflags", "-X main.version="+r.version, "-o", self, "./cmd/otrproxy").CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("%w\n%s", err, out)
	}
	dir := filepath.Join(r.work, "man")
	if out, err := exec.Command(self, "man", dir).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("manual pages: %w\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(pages)
	for _, p := range pages {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, nil, err
		}
		manual = append(manual, file{"man/" + filepath.Base(p), 0o644, b})
	}
	for _, shell := range []string{"bash", "fish", "zsh"} {
		b, err := exec.Command(self, "completion", shell).Output()
		if err != nil {
			return nil, nil, fmt.Errorf("completion of %s: %w", shell, err)
		}
		completions = append(completions, file{"completions/" + map[string]string{"bash": "otrproxy.bash", "fish": "otrproxy.fish", "zsh": "_otrproxy"}[shell], 0o644, b})
	}
	return manual, completions, nil
}

// source reads a file of the project.
func (r *release) source(name string) []byte {
	b, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		panic(err) // of this very commit
	}
	return b
}

// configuration is the default one, for a system that keeps state in a place of its own.
func (r *release) configuration(state string) []byte {
	text := string(r.source("packaging/otrproxy.yaml"))
	if state == "" {
		return []byte(strings.Replace(text, "\nstate: STATE", "\n#state: /var/lib/otrproxy", 1))
	}
	return []byte(strings.Replace(text, "\nstate: STATE", "\nstate: "+state, 1))
}

func (r *release) archive(t target, program string, more []file) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	list := []file{{t.program(), 0o755, b}}
	for _, name := range []string{"README.md", "CHANGELOG.md", "LICENSE", "docs/clients.md", "docs/lan.md", "docs/otr-engine.md", "docs/threat-model.md",
		"packaging/grafana/otrproxy.json", "packaging/prometheus/otrproxy.rules.yml"} {
		list = append(list, file{strings.TrimPrefix(name, "packaging/"), 0o644, r.source(name)})
	}
	state := ""
	switch t.os {
	case "linux":
		list = append(list, file{"systemd/otrproxy.service", 0o644, r.source("packaging/systemd/otrproxy.service")}, file{"systemd/otrproxy.socket", 0o644, r.source("packaging/systemd/otrproxy.socket")},
			file{"nftables/otrproxy.nft", 0o644, r.source("packaging/nftables/otrproxy.nft")})
	case "windows":
		state = `'C:\ProgramData\otrproxy\state'`
		list = append(list, file{"install.ps1", 0o644, r.source("packaging/windows/install.ps1")})
	case "darwin":
		list = append(list, file{"org.otrproxy.plist", 0o644, r.source("packaging/macos/org.otrproxy.plist")})
	case "freebsd":
		list = append(list, file{"rc.d/otrproxy", 0o755, r.source("packaging/freebsd/otrproxy")})
	}
	list = append(append(list, file{"otrproxy.yaml", 0o644, r.configuration(state)}), more...)
	base := "otrproxy-" + r.version + "-" + t.String()
	if t.os == "windows" {
		return r.zip(base, list)
	}
	return r.tar(base, list)
}

func (r *release) tar(base string, list []file) error {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	for _, f := range list {
		h := &tar.Header{Name: base + "/" + f.name, Mode: f.mode, Size: int64(len(f.text)), ModTime: r.at, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, base+".tar.gz"), out.Bytes(), 0o644)
}

func (r *release) zip(base string, list []file) error {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range list {
		h := &zip.FileHeader{Name: base + "/" + f.name, Method: zip.Deflate, Modified: r.at}
		h.SetMode(os.FileMode(f.mode))
		to, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := to.Write(f.text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, base+".zip"), out.Bytes(), 0o644)
}

// packed is a file compressed as Debian wants it.
func packed(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// pack makes a package.
func (r *release) pack(format string, t target, program string, manual, completions []file) error {
	dir := filepath.Join(r.work, format+"-"+t.String())
	contents := files.Contents{}
	put := func(to, kind string, mode int64, b []byte) error {
		from := filepath.Join(dir, strings.ReplaceAll(strings.Trim(to, "/"), "/", "_"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		contents = append(contents, &files.Content{Source: from, Destination: to, Type: kind, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: os.FileMode(mode), MTime: r.at}})
		return os.WriteFile(from, b, 0o644)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	units := "/lib/systemd/system/"
	if format == "rpm" {
		units = "/usr/lib/systemd/system/"
	}
	version := strings.ReplaceAll(r.version, "-", "~") // what comes before a release sorts before it
	list := []file{
		{"/usr/bin/otrproxy", 0o755, b},
		{units + "otrproxy.service", 0o644, r.source("packaging/systemd/otrproxy.service")},
		{units + "otrproxy.socket", 0o644, r.source("packaging/systemd/otrproxy.socket")},
		{"/usr/share/doc/otrproxy/nftables/otrproxy.nft", 0o644, r.source("packaging/nftables/otrproxy.nft")},
		{"/usr/share/doc/otrproxy/grafana/otrproxy.json", 0o644, r.source("packaging/grafana/otrproxy.json")},
		{"/usr/share/doc/otrproxy/prometheus/otrproxy.rules.yml", 0o644, r.source("packaging/prometheus/otrproxy.rules.yml")},
		{"/usr/share/doc/otrproxy/README.md.gz", 0o644, packed(r.source("README.md"))},
	}
	for _, name := range []string{"clients", "lan", "otr-engine", "threat-model"} {
		list = append(list, file{"/usr/share/doc/otrproxy/" + name + ".md.gz", 0o644, packed(r.source("docs/" + name + ".md"))})
	}
	if format == "deb" {
		entry := fmt.Sprintf("otrproxy (%s) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n", version, "See NEWS.md.gz for what has changed.", maintainer, r.at.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
		list = append(list, file{"/usr/share/doc/otrproxy/changelog.gz", 0o644, packed([]byte(entry))}, file{"/usr/share/doc/otrproxy/NEWS.md.gz", 0o644, packed(r.source("CHANGELOG.md"))},
			file{"/usr/share/doc/otrproxy/copyright", 0o644, r.source("packaging/debian/copyright")}, file{"/usr/share/lintian/overrides/otrproxy", 0o644, r.source("packaging/debian/lintian-overrides")})
	} else {
		list = append(list, file{"/usr/share/doc/otrproxy/CHANGELOG.md.gz", 0o644, packed(r.source("CHANGELOG.md"))}, file{"/usr/share/licenses/otrproxy/LICENSE", 0o644, r.source("LICENSE")})
	}
	for _, m := range manual {
		list = append(list, file{"/usr/share/man/man1/" + filepath.Base(m.name) + ".gz", 0o644, packed(m.text)})
	}
	places := map[string]string{"otrproxy.bash": "/usr/share/bash-completion/completions/otrproxy", "otrproxy.fish": "/usr/share/fish/vendor_completions.d/otrproxy.fish", "_otrproxy": "/usr/share/zsh/vendor-completions/_otrproxy"}
	for _, c := range completions {
		list = append(list, file{places[filepath.Base(c.name)], 0o644, c.text})
	}
	for _, f := range list {
		if err := put(f.name, files.TypeFile, f.mode, f.text); err != nil {
			return err
		}
	}
	kind := files.TypeConfig
	if format == "rpm" {
		kind = files.TypeConfigNoReplace
	}
	if err := put("/etc/otrproxy/otrproxy.yaml", kind, 0o644, r.configuration("/var/lib/otrproxy")); err != nil {
		return err
	}
	script := func(name string) string { return filepath.Join(r.root, "packaging", name) }
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "otrproxy", Arch: t.pkg, Platform: "linux", Version: version, VersionSchema: "none", MTime: r.at, Section: "net", Priority: "optional",
		Maintainer: maintainer, License: "GPL-3.0-or-later", Homepage: "https://otr.im/",
		Description: "local XMPP proxy that adds OTR encryption to any chat client\n" +
			"Point a chat client at this machine, and otrproxy logs in to the real\n" +
			"server over a connection whose certificate it has pinned, turns what is\n" +
			"typed into OTR and what arrives back into text, and lets people verify\n" +
			"each other. One serves a household, with its rules.",
	})
	info.Contents = contents
	if format == "deb" {
		info.Depends = []string{"adduser"}
		info.Recommends = []string{"ca-certificates"}
		info.License = "" // it stands in the copyright file
		info.Scripts = nfpm.Scripts{PostInstall: script("debian/postinst"), PreRemove: script("debian/prerm"), PostRemove: script("debian/postrm")}
	} else {
		info.Depends = []string{"shadow-utils"}
		info.Scripts = nfpm.Scripts{PostInstall: script("rpm/postinst"), PreRemove: script("rpm/preremove")}
		info.RPM.BuildHost = "otrproxy.invalid"
		info.RPM.Summary = "Local XMPP proxy that adds OTR encryption to any chat client"
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := packager.Package(info, &out); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, packager.ConventionalFileName(info)), out.Bytes(), 0o644)
}

const maintainer = "otrproxy developers <maintainers@otrproxy.invalid>"

// sbom lists the modules in a program, as it says itself.
func (r *release) sbom(t target, program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: r.at.Format(time.RFC3339), Component: &cdx.Component{BOMRef: "otrproxy", Type: cdx.ComponentTypeApplication, Name: "otrproxy", Version: r.version}}
	components := []cdx.Component{{BOMRef: "go", Type: cdx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion, PackageURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url})
	}
	bom.Components = &components
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, "otrproxy-"+r.version+"-"+t.String()+".cdx.json"), out.Bytes(), 0o644)
}

// checksums are those of everything, in the form of sha256sum.
func (r *release) checksums() error {
	list, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, e := range list {
		f, err := os.Open(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", h.Sum(nil), e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), out.Bytes(), 0o644)
}
