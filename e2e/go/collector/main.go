// The receiver of OpenTelemetry's collector for tests.
//
//	collector GRPC_ADDRESS HTTP_ADDRESS
//
// Everything that it accepts by OTLP is written to standard error: a line with a JSON object of OTLP for each message.
package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// Messages arrive on several connections at the same time.
var output sync.Mutex

func main() {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	protocols := map[string]any{
		"grpc": map[string]any{"endpoint": os.Args[1]},
		"http": map[string]any{"endpoint": os.Args[2]},
	}
	check(confmap.NewFromStringMap(map[string]any{"protocols": protocols}).Unmarshal(config))
	ctx, settings := context.Background(), receivertest.NewNopSettings(factory.Type())
	traces, err := consumer.NewTraces(func(_ context.Context, received ptrace.Traces) error {
		return write((&ptrace.JSONMarshaler{}).MarshalTraces(received))
	})
	check(err)
	logs, err := consumer.NewLogs(func(_ context.Context, received plog.Logs) error {
		return write((&plog.JSONMarshaler{}).MarshalLogs(received))
	})
	check(err)
	// Both share the servers, which belong to the configuration.
	tracesReceiver, err := factory.CreateTraces(ctx, settings, config, traces)
	check(err)
	logsReceiver, err := factory.CreateLogs(ctx, settings, config, logs)
	check(err)
	for _, receiver := range []component.Component{tracesReceiver, logsReceiver} {
		check(receiver.Start(ctx, componenttest.NewNopHost()))
	}
	select {}
}

func write(line []byte, err error) error {
	output.Lock()
	defer output.Unlock()
	if err == nil {
		_, err = fmt.Fprintf(os.Stderr, "%s\n", line)
	}
	return err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
