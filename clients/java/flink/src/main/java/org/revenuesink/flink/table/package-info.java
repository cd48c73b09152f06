/** The connector {@code revenue-sink} of Flink SQL; see the README for its options. */
package org.revenuesink.flink.table;
