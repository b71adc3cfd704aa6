package proxy

func init() { workFactor = 10 } // else the tests spend their time on guessing costs
