package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"otrproxy/config"
	"otrproxy/confine"
	"otrproxy/proxy/control"
)

// confined takes from the process what a proxy that is up does not need, as the
// configuration says, and says what that came to.
func confined(cfg *config.Config, log *slog.Logger) (*control.Confinement, error) {
	if os.Geteuid() == 0 { // -1 where there is no such thing
		log.Warn("otrproxy runs as root; whoever gets into it could do much more than it needs. Give it a user of its own, as the service in packaging/systemd does")
	}
	r := confine.Report{InForce: []string{"no core dumps"}}
	if cfg.Confine != "off" {
		net.DefaultResolver.PreferGo = true // C's resolver loads code
		r = confine.Process(confine.Paths{State: cfg.State, Read: configurationPlace(cfg.File, log)})
	}
	if cfg.Confine == "require" && !r.Whole {
		return nil, fmt.Errorf("this machine cannot confine the process as \"confine: require\" asks for: %s; \"confine: auto\" makes do with what there is", strings.Join(r.Missing, ", "))
	}
	log.Info("confined", "mode", cfg.Confine, "in force", strings.Join(r.InForce, ", "), "not in force", strings.Join(r.Missing, ", "))
	return &control.Confinement{Mode: cfg.Confine, InForce: r.InForce, Missing: append([]string{}, r.Missing...)}, nil
}

// configurationPlace is what has to be readable for the configuration to be read again:
// its directory, since editors put a new file in the place of the old one. Where much
// else lies beside it that is too much, and the file must do.
func configurationPlace(file string, log *slog.Logger) []string {
	if file == "" {
		return nil
	}
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil
	}
	places := []string{target}
	for _, path := range []string{target, file} { // a link is put anew, too
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil || holdsMuch(dir) {
			log.Info("beside the configuration there is much else, so that it is only read again as long as it stays the same file; put it into a directory of its own", "directory", dir)
			continue
		}
		places = append(places, dir)
	}
	return places
}

// reread reads the configuration again. The file was before when the process was confined: where
// another one has taken its place that may not be read, that is why.
func reread(file string, before os.FileInfo) (*config.Config, error) {
	cfg, err := config.Load(file)
	if now, _ := os.Stat(file); errors.Is(err, fs.ErrPermission) && before != nil && now != nil && !os.SameFile(before, now) {
		return nil, fmt.Errorf("%w: an editor has put a new file in the place of the one that otrproxy was started with, and beside it there is much that this process may not see. "+
			"Start otrproxy again; to have it read again next time, put the configuration into a directory of its own", err)
	}
	return cfg, err
}

// holdsMuch reports whether a directory is everybody's, or a person's home or above it.
func holdsMuch(dir string) bool {
	for _, wide := range []string{"/", "/etc", "/tmp", "/var/tmp", "/usr/local/etc", "/root"} {
		if dir == wide {
			return true
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, home)
	return err == nil && (rel == "." || rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)))
}
