package config

import (
	"os"
	"path/filepath"
	"runtime"
)

// DefaultState is where state is kept when nothing is configured: $XDG_STATE_HOME/otrproxy
// where that is set; else the user's own place for what a program remembers. Without a
// user's home, it is the system's.
func DefaultState() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "otrproxy")
	}
	home, _ := os.UserHomeDir()
	return stateIn(runtime.GOOS, home, os.Getenv("LocalAppData"), os.Getenv("ProgramData"))
}

func stateIn(system, home, local, common string) string {
	switch {
	case system == "windows" && local != "":
		return filepath.Join(local, "otrproxy")
	case system == "windows":
		return filepath.Join(common, "otrproxy")
	case home == "" && system == "freebsd":
		return filepath.Join("/var", "db", "otrproxy")
	case home == "":
		return SystemState
	case system == "darwin":
		return filepath.Join(home, "Library", "Application Support", "otrproxy")
	}
	return filepath.Join(home, ".local", "state", "otrproxy")
}

// SystemState is the state directory of a proxy that runs for the whole system.
const SystemState = "/var/lib/otrproxy"
