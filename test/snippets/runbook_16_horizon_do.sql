ROLLBACK PREPARED 'a test of last week';
