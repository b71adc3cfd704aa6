package otr

import "errors"

// limitMemory is not to be had without a job object around the process.
func limitMemory(uint64) error { return errors.ErrUnsupported }
