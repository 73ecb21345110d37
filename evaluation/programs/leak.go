// A goroutine for every request waits for ever for an answer and keeps KB of memory: one every MS milliseconds.
package main

import (
	"os"
	"strconv"
	"time"
)

func main() {
	size, _ := strconv.Atoi(os.Args[1])
	pause, _ := strconv.Atoi(os.Args[2])
	answers := make(chan []byte)
	for {
		go func() {
			request := make([]byte, size*1024)
			for n := range request {
				request[n] = 7
			}
			<-answers
			os.Stdout.Write(request)
		}()
		time.Sleep(time.Duration(pause) * time.Millisecond)
	}
}
