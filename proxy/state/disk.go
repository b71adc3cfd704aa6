package state

import (
	"os"
	"sync"
	"time"
)

// A Disk is tried no more than once in a while, however many ask.
type Disk struct {
	mu    sync.Mutex
	tried time.Time
	well  bool
}

const (
	diskPause = time.Second
	diskBlock = 4096 // bytes: an empty file can be made on a full disk
)

// Writable reports whether something can be written to a directory.
func (d *Disk) Writable(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.tried) > diskPause {
		d.tried, d.well = time.Now(), canWrite(dir)
	}
	return d.well
}

func canWrite(dir string) bool {
	f, err := os.CreateTemp(dir, ".health-")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, diskBlock))
	return f.Close() == nil && err == nil
}
