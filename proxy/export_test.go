package proxy

func init() { workFactor, maxBackup = 10, 32<<20 } // else the tests spend their time on guessing costs
