package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows/svc"
)

// asService runs the program, as a service where the service manager has started it: that
// says when to stop, and is told how things stand.
func asService(program func() error) error {
	is, err := svc.IsWindowsService()
	if err != nil || !is {
		return program()
	}
	s := &service{program: program}
	if err := svc.Run("otrproxy", s); err != nil {
		return err
	}
	return s.err
}

type service struct {
	program func() error
	err     error
}

func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange
	status <- svc.Status{State: svc.StartPending}
	done := make(chan error, 1)
	go func() { done <- s.program() }()
	status <- svc.Status{State: svc.Running, Accepts: accepts}
	for {
		select {
		case s.err = <-done:
			if s.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending}
				signals <- os.Interrupt
			case svc.ParamChange: // sc control otrproxy paramchange
				signals <- syscall.SIGHUP
			}
		}
	}
}
