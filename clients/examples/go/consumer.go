// Kafka to revenue_sink, exactly once: franz-go and pgx.
//
//	consumer INSTANCE
//
// BOOTSTRAP, TOPIC and GROUP say what to read; PGHOST and so on, where to write. A
// record is order_id,event_id,event_time,amount. The group is the job, and each
// partition is a writer of it: so whoever is assigned a partition fences whoever had
// it before. The offsets that count are in the sink, where they commit with the
// events. Kafka is told none.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
)

const sinkName = "orders"
const round = 500               // records, at most
const giveUp = 60 * time.Second // without an answer

var topic, job = os.Getenv("TOPIC"), os.Getenv("GROUP")

// franz-go assigns in a goroutine of its own: the lock is for the connection and the map.
type sink struct {
	sync.Mutex
	conn   *pgx.Conn
	epochs map[int32]int64 // by partition
	number int64
}

func writer(partition int32) string { return fmt.Sprintf("%s-%d", topic, partition) }

// repeat works until there is an answer, safe whatever became of the last one. What isn't
// worth repeating is returned, the fencing error RS001 above all: a zombie must stop.
func (s *sink) repeat(ctx context.Context, work func() error) (err error) {
	for deadline := time.Now().Add(giveUp); ; time.Sleep(100 * time.Millisecond) {
		if s.conn == nil || s.conn.IsClosed() {
			s.conn, err = pgx.Connect(ctx, "")
		}
		if s.conn != nil && !s.conn.IsClosed() {
			err = work()
		}
		var pg *pgconn.PgError // of another kind: no server
		if err == nil || time.Now().After(deadline) || errors.As(err, &pg) && pg.Code != "40001" &&
			!strings.HasPrefix(pg.Code, "08") && !strings.HasPrefix(pg.Code, "57P") {
			return err
		}
		if s.conn != nil {
			s.conn.Close(ctx) // rolls back what may be open
		}
	}
}

// open begins a new epoch for a partition: its former owner can't commit any more. Only
// then is it known where to go on.
func (s *sink) open(ctx context.Context, partition int32) (next int64, err error) {
	var epoch int64
	err = s.conn.QueryRow(ctx, "CALL revenue_sink.open_writer($1, $2, $3)", sinkName, job, writer(partition)).Scan(&epoch)
	if err == nil {
		s.epochs[partition] = epoch
		err = s.conn.QueryRow(ctx, "SELECT coalesce(max(next_offset), 0) FROM revenue_sink.offsets($1, $2) WHERE partition = $3",
			sinkName, topic, partition).Scan(&next)
	}
	return next, err
}

// assigned is asked before partitions are read from: an offset each.
func (s *sink) assigned(ctx context.Context, all map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s.Lock()
	defer s.Unlock()
	for p := range all[topic] {
		var next int64
		if err := s.repeat(ctx, func() (err error) { next, err = s.open(ctx, p); return err }); err != nil {
			log.Fatal(err)
		}
		all[topic][p] = kgo.NewOffset().At(next)
		fmt.Printf("partition %d from %d, epoch %d\n", p, next, s.epochs[p])
	}
	return all, nil
}

// write is one batch in one transaction. If it was there, its answer was lost.
func (s *sink) write(ctx context.Context, partition int32, records []*kgo.Record) error {
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		var isNew bool
		err := tx.QueryRow(ctx, "SELECT revenue_sink.begin_batch($1, $2, $3, $4, $5)",
			sinkName, job, writer(partition), s.epochs[partition], s.number).Scan(&isNew)
		if err != nil || !isNew {
			return err
		}
		var columns [4][]string
		for _, r := range records {
			for i, field := range strings.SplitN(string(r.Value), ",", 4) {
				columns[i] = append(columns[i], field)
			}
		}
		_, err = tx.Exec(ctx, "SELECT * FROM revenue_sink.apply($1, $2, $3, $4::text[]::timestamptz[], $5::text[]::numeric[])",
			sinkName, columns[0], columns[1], columns[2], columns[3])
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "SELECT revenue_sink.store_offsets($1, $2, $3, $4)", sinkName, topic,
			[]int32{partition}, []int64{records[len(records)-1].Offset + 1})
		return err
	})
}

func main() {
	ctx, s := context.Background(), &sink{epochs: map[int32]int64{}}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(job), kgo.InstanceID(os.Args[1]), kgo.SessionTimeout(6*time.Second), kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.AdjustFetchOffsetsFn(s.assigned),
		kgo.BlockRebalanceOnPoll()) // nobody else gets a partition in the middle of its batch
	if err != nil {
		log.Fatal(err)
	}
	for {
		fetches := client.PollRecords(ctx, round)
		for _, e := range fetches.Errors() {
			var session *kgo.ErrGroupSession
			if !errors.As(e.Err, &session) { // after that one it joins again by itself
				log.Fatal(e.Err)
			}
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			s.Lock()
			defer s.Unlock()
			s.number++
			if err := s.repeat(ctx, func() error { return s.write(ctx, p.Partition, p.Records) }); err != nil {
				log.Fatal(err)
			}
		})
		client.AllowRebalance()
	}
}
