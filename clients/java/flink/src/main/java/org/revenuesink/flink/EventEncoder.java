package org.revenuesink.flink;

import java.io.Serializable;
import org.revenuesink.EventBatch;

/**
 * Turns an element of a stream into an event.
 *
 * @param <T> the stream's type
 */
@FunctionalInterface
public interface EventEncoder<T> extends Serializable {
  /**
   * Adds the element to a batch. An element that is no event is left out by adding nothing.
   *
   * @param element the element
   * @param batch takes the event by one of its {@code add} methods
   */
  void encode(T element, EventBatch batch);
}
