// A small cluster of Kafka brokers for tests, in memory.
//
//	kfake USER PASSWORD PORT PORT PORT [CERTIFICATE KEY]
//
// Three brokers on 127.0.0.1 with the topic "logs", which has three partitions. Other topics are created when they are
// used. Brokers require SASL, and TLS if there are files with a certificate, which is its own root, and its key. Every 200 ms, each partition of "logs" gets another leader. For each record that a
// consumer of all topics gets, a line with a JSON object is written to standard error.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const (
	partitions = 3
	// How soon the consumer notices a new topic.
	metadataAge = 200 * time.Millisecond
)

type record struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Key       *string `json:"key"`
	Value     string  `json:"value"`
	Timestamp int64   `json:"timestamp"`
}

func main() {
	user, password := os.Args[1], os.Args[2]
	var ports []int
	for _, text := range os.Args[3:6] {
		port, err := strconv.Atoi(text)
		check(err)
		ports = append(ports, port)
	}
	options := []kfake.Opt{
		kfake.Ports(ports...), kfake.NumBrokers(len(ports)), kfake.SeedTopics(partitions, "logs"),
		kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(1), kfake.EnableSASL(),
	}
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		options = append(options, kfake.Superuser(mechanism, user, password))
	}
	consumer := []kgo.Opt{
		kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()),
		kgo.ConsumeRegex(), kgo.ConsumeTopics("^[a-z].*"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(metadataAge), kgo.MetadataMaxAge(metadataAge),
	}
	if len(os.Args) > 6 {
		certificate, err := tls.LoadX509KeyPair(os.Args[6], os.Args[7])
		check(err)
		root, err := os.ReadFile(os.Args[6])
		check(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		options = append(options, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
		consumer = append(consumer, kgo.DialTLSConfig(&tls.Config{RootCAs: roots}))
	}
	cluster, err := kfake.NewCluster(options...)
	check(err)
	go moveLeaders(cluster, int32(len(ports)))
	client, err := kgo.NewClient(append(consumer, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	check(err)
	output := json.NewEncoder(os.Stderr)
	for {
		client.PollFetches(context.Background()).EachRecord(func(got *kgo.Record) {
			line := record{
				Topic: got.Topic, Partition: got.Partition, Value: string(got.Value),
				Timestamp: got.Timestamp.UnixMilli(),
			}
			if got.Key != nil {
				key := string(got.Key)
				line.Key = &key
			}
			check(output.Encode(line))
		})
	}
}

func moveLeaders(cluster *kfake.Cluster, nodes int32) {
	for turn := int32(0); ; turn++ {
		time.Sleep(200 * time.Millisecond)
		for partition := range int32(partitions) {
			check(cluster.MoveTopicPartition("logs", partition, (turn+partition)%nodes))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
