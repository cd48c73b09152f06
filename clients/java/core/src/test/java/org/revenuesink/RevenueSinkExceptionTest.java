package org.revenuesink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.sql.SQLException;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class RevenueSinkExceptionTest {
  @ParameterizedTest
  @CsvSource({
    "RS001, FencedException",
    "08006, RetryableException",
    "57P01, RetryableException",
    "57014, RetryableException",
    "40001, RetryableException",
    "53300, RetryableException",
    "25000, RevenueSinkException",
    "22023, RevenueSinkException",
    "55000, RevenueSinkException",
    ", RevenueSinkException",
  })
  void aStateHasItsClass(String state, String expected) {
    SQLException driver = new SQLException("message", state);
    RevenueSinkException e = RevenueSinkException.of(driver);
    assertEquals(expected, e.getClass().getSimpleName());
    assertEquals("message", e.getMessage());
    assertEquals(state, e.getSQLState());
    assertSame(driver, e.getCause());
    assertSame(e, RevenueSinkException.of(e));
  }
}
