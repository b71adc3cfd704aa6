package notify

import (
	"errors"
	"os/exec"
	"strconv"
)

// endTogether makes what a command starts end with it. Windows knows no process groups that
// could be ended; taskkill follows who started whom.
func endTogether(cmd *exec.Cmd) {
	cmd.Cancel = func() error {
		tree := exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid)).Run()
		return errors.Join(tree, cmd.Process.Kill())
	}
}
